"""The examples of the pages, run as their readers run them: files and commands are taken from the page."""

from __future__ import annotations

import re
import shlex
import sys
from typing import Any

import pytest

from docs.checks import ROOT, read
from examples.mock_openai import MockOpenAI, call, say
from tests.deployment import Deploy, on_targets, run_in_process
from tests.guides import write_files


def commands(page: str, *verbs: str) -> list[list[str]]:
    """Return the arguments of the page's commands with these verbs, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^ *(?:\$ )?(?:\w+=\S+ )?agentexec (.*)$", text, re.MULTILINE)
    split = (shlex.split(line, comments=True) for line in lines)
    return [arguments for arguments in split if arguments[0] in verbs]


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_quickstart(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    page = "docs/quickstart.md"
    told = (ROOT / page).read_text(encoding="utf-8").splitlines()
    mock_openai.script(
        [
            call("report_status", message="Looking up the year", percentage=30),
            call("founded", company="Globex"),
            call("report_status", message="Writing", percentage=80),
            say("Globex makes anvils. It was founded in 1949."),
        ]
    )
    deployment = deploy()
    (init,), (work, *_) = commands(page, "init"), commands(page, "worker")
    code, _, error = run_in_process(deployment, *init)
    assert code == 0, error
    deployment.folder /= init[-1]
    deployment.spawn(
        [sys.executable, "-m", "agentexec", *work],
        OPENAI_BASE_URL=mock_openai.base_url,
        OPENAI_API_KEY="mock",
    )
    enqueued = commands(page, "enqueue")
    assert [arguments[1] for arguments in enqueued] == ["greet", "research"]
    for arguments in enqueued:
        code, output, error = run_in_process(deployment, *arguments)
        assert code == 0, error
        result = output.splitlines()[-1]
        assert f"    {result}" in told


@on_targets("embedded")
async def test_the_ten_lines_of_the_readme(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([call("report_status", message="Reading", percentage=40), say("Acme makes anvils.")])
    deployment = deploy()
    write_files("../README.md", deployment.folder)
    (work,) = commands("README.md", "worker")
    (enqueue,) = commands("README.md", "enqueue")
    deployment.spawn(
        [sys.executable, "-m", "agentexec", *work],
        OPENAI_BASE_URL=mock_openai.base_url,
        OPENAI_API_KEY="mock",
    )
    code, result, _ = run_in_process(deployment, *enqueue)
    assert (code, result) == (0, "Acme makes anvils.\n"), deployment.log

    (web_app,) = (block for block in read(ROOT / "README.md").blocks if "async def start" in block.text)
    names: dict[str, Any] = {}
    exec(web_app.text, names)
    agent_id = await names["start"]("Acme")
    assert await names["wait"](agent_id) == "Acme makes anvils."
    code, log, _ = run_in_process(deployment, "logs", agent_id)
    assert "40 %  Reading" in log

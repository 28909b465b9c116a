"""The examples of the pages, run as their readers run them: files and commands are taken from the page."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from docs.checks import ROOT, read
from examples.mock_openai import MockOpenAI, call, say
from tests.deployment import Deploy, command, on


def write_files(page: str, folder: Path) -> None:
    """The blocks of a page that begin with the name of a file."""
    for block in read(ROOT / page).blocks:
        if block.file:
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")


def commands(page: str, *verbs: str) -> list[list[str]]:
    """The arguments of the page's commands with these verbs, in their order."""
    lines = re.findall(r"^(?:    )?agentexec (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    split = (shlex.split(line, comments=True) for line in lines)
    return [arguments for arguments in split if arguments[0] in verbs]


@on("embedded")
async def test_the_ten_lines_of_the_readme(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([call("report_status", message="Reading", percentage=40), say("Acme makes anvils.")])
    deployment = deploy()
    write_files("README.md", deployment.folder)
    (work,) = commands("README.md", "worker")
    (enqueue,) = commands("README.md", "enqueue")
    deployment.spawn(
        [sys.executable, "-m", "agentexec", *work],
        OPENAI_BASE_URL=mock_openai.base_url,
        OPENAI_API_KEY="mock",
    )
    code, result, _ = command(deployment, *enqueue)
    assert (code, result) == (0, "Acme makes anvils.\n"), deployment.log

    (web_app,) = (block for block in read(ROOT / "README.md").blocks if "async def start" in block.text)
    names: dict[str, Any] = {}
    exec(web_app.text, names)
    agent_id = await names["start"]("Acme")
    assert await names["wait"](agent_id) == "Acme makes anvils."
    code, log, _ = command(deployment, "logs", agent_id)
    assert "40 %  Reading" in log

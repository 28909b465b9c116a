"""The command line: what each verb does and prints, and what it never loads. Bad input has a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment, on_targets, run_agentexec

# ---- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["worker", "--help"], ["enqueue", "-h"]], ids=" ".join
)
def test_help_is_given(arguments: list[str], tmp_path: Path) -> None:
    done = run_agentexec(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: agentexec" in done.stdout
    assert list(tmp_path.iterdir()) == [], "and leaves nothing behind"


def test_the_verbs_are_those_of_the_contract(tmp_path: Path) -> None:
    text = run_agentexec("--help", cwd=tmp_path).stdout
    for verb in ("worker", "migrate", "enqueue", "cancel", "cancel-pending"):
        assert verb in text


def test_the_version_is_told(tmp_path: Path) -> None:
    done = run_agentexec("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"agentexec {ax.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "agentexec: No such command 'nope'; see `agentexec --help`.\n"),
        (["prune"], "agentexec: Missing option '--older-than'; see `agentexec prune --help`.\n"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run_agentexec(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


# ---- enqueue and cancel-pending -------------------------------------------------------------------------------


def enqueue(deployment: Deployment, *arguments: str, text: str | None = None) -> tuple[int, str, str]:
    variables = {
        name: value for name, value in deployment.environment.items() if name.startswith("AGENTEXEC_")
    }
    done = run_agentexec("enqueue", *arguments, cwd=deployment.folder, text=text, **variables)
    return done.returncode, done.stdout, done.stderr


@on_targets("embedded", "valkey+sqlite")
def test_enqueue_takes_every_option(deploy: Deploy) -> None:
    deployment = deploy()
    low = enqueue(deployment, "work")[1].strip()
    high = enqueue(deployment, "work", "--priority", "HIGH", "--idempotency-key", "k")[1].strip()
    again = enqueue(deployment, "work", "-p", "high", "--idempotency-key", "k")[1].strip()
    elsewhere = enqueue(deployment, "work", "-Q", "reports")[1].strip()
    assert again == high
    claim = {"limit": 10, "low_quota": 0, "lease_seconds": 30.0}
    backend = RUNTIME.backend
    assert [str(one.agent_id) for one in backend.claim("agentexec_tasks", "t", **claim).leases] == [high, low]
    assert [str(one.agent_id) for one in backend.claim("reports", "t", **claim).leases] == [elsewhere]


@on_targets("embedded")
def test_cancel_pending_cancels_what_waits(deploy: Deploy) -> None:
    deployment = deploy()
    tasks = [deployment.enqueue("work", key) for key in "abc"]
    variables = {"AGENTEXEC_DATABASE_URL": deployment.environment["AGENTEXEC_DATABASE_URL"]}
    done = run_agentexec("cancel-pending", cwd=deployment.folder, text="n\n", **variables)
    assert done.returncode == 1
    assert [deployment.status(task) for task in tasks] == ["queued"] * 3
    done = run_agentexec("cancel-pending", "-m", "tenant=b", "--yes", cwd=deployment.folder, **variables)
    assert done.stdout == "Canceled 0 task(s).\n"
    done = run_agentexec("cancel-pending", "--yes", cwd=deployment.folder, **variables)
    assert (done.returncode, done.stdout) == (0, "Canceled 3 task(s).\n")
    assert [deployment.status(task) for task in tasks] == ["canceled"] * 3


# ---- what is never loaded ----------------------------------------------------------------------------------


NOTE = """
import atexit, gc, os
SIGNS = [gc.get_threshold()[0], os.environ.get("PYDANTIC_DISABLE_PLUGINS")]
atexit.register(lambda: print([gc.get_threshold()[0], os.environ.get("PYDANTIC_DISABLE_PLUGINS")] == SIGNS))
"""


@pytest.mark.parametrize(
    ("arguments", "is_usual"),
    [
        (["list"], False),
        (["worker", "no_such_module"], True),
        (["--traceback", "worker", "no_such_module"], True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_only_what_ends_soon_saves_on_garbage_and_plugins(
    arguments: list[str], is_usual: bool, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTE)
    done = run_agentexec(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.stdout.splitlines()[-1] == str(is_usual)

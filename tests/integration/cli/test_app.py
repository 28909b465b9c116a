"""The command line: help, version, and commands on a queue. Bad input has a file of its own."""

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
def test_help_is_printed_and_nothing_is_created(arguments: list[str], tmp_path: Path) -> None:
    done = run_agentexec(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: agentexec" in done.stdout
    assert list(tmp_path.iterdir()) == [], "help creates no file"


def test_the_verbs_are_those_of_the_contract(tmp_path: Path) -> None:
    text = run_agentexec("--help", cwd=tmp_path).stdout
    for verb in ("worker", "migrate", "enqueue", "cancel", "cancel-pending"):
        assert verb in text


def test_the_version_is_printed(tmp_path: Path) -> None:
    done = run_agentexec("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"agentexec {ax.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "agentexec: No such command 'nope'; see `agentexec --help`.\n"),
        (["lis"], "agentexec: No such command 'lis'. Did you mean 'list'? See `agentexec --help`.\n"),
        (["prune"], "agentexec: Missing option '--older-than'; see `agentexec prune --help`.\n"),
    ],
)
def test_a_wrong_command_line_is_reported_in_one_sentence(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run_agentexec(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


# ---- enqueue and cancel-pending -------------------------------------------------------------------------------


def enqueue(deployment: Deployment, *arguments: str, text: str | None = None) -> tuple[int, str, str]:
    variables = {
        name: value for name, value in deployment.environment.items() if name.startswith("AGENTEXEC_")
    }
    done = run_agentexec("enqueue", *arguments, cwd=deployment.folder, text=text, **variables)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.thorough
@on_targets("embedded", "valkey+sqlite")
def test_enqueue_honors_every_option(deploy: Deploy) -> None:
    deployment = deploy()
    low = enqueue(deployment, "work")[1].strip()
    high = enqueue(deployment, "work", "--priority", "HIGH", "--idempotency-key", "k")[1].strip()
    again = enqueue(deployment, "work", "-p", "high", "--idempotency-key", "k")[1].strip()
    elsewhere = enqueue(deployment, "work", "-Q", "reports")[1].strip()
    assert again == high
    claim = {"limit": 10, "low_quota": 0, "lease_seconds": 30.0}
    backend = RUNTIME.backend
    assert [str(lease.agent_id) for lease in backend.claim("agentexec_tasks", "t", **claim).leases] == [
        high,
        low,
    ]
    assert [str(lease.agent_id) for lease in backend.claim("reports", "t", **claim).leases] == [elsewhere]


@pytest.mark.thorough
@on_targets("embedded")
def test_cancel_pending_cancels_queued_tasks_after_a_yes(deploy: Deploy) -> None:
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


# ---- start-up ----------------------------------------------------------------------------------------------


NOTE = """
import atexit, gc, os
BEFORE = [gc.get_threshold()[0], os.environ.get("PYDANTIC_DISABLE_PLUGINS")]
atexit.register(lambda: print([gc.get_threshold()[0], os.environ.get("PYDANTIC_DISABLE_PLUGINS")] == BEFORE))
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "unchanged"),
    [
        (["list"], False),
        (["worker", "no_such_module"], True),
        (["--traceback", "worker", "no_such_module"], True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_only_short_commands_skip_garbage_collection_and_plugins(
    arguments: list[str], unchanged: bool, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTE)
    done = run_agentexec(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.stdout.splitlines()[-1] == str(unchanged)

"""The command line: what each verb does, what it prints, and what it never loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment, on, run_agentexec, run_python

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
    for verb in ("worker", "migrate", "monitor", "cancel-pending", "enqueue"):
        assert verb in text


def test_the_version_is_told(tmp_path: Path) -> None:
    done = run_agentexec("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"agentexec {ax.__version__}\n")


# ---- enqueue, with a worker --------------------------------------------------------------------------------


def enqueue(running: Deployment, *arguments: str, text: str | None = None) -> tuple[int, str, str]:
    variables = {name: value for name, value in running.environment.items() if name.startswith("AGENTEXEC_")}
    done = run_agentexec("enqueue", *arguments, cwd=running.folder, text=text, **variables)
    return done.returncode, done.stdout, done.stderr


def test_enqueue_prints_the_agent_id(running: Deployment) -> None:
    code, out, _ = enqueue(running, "work", '{"key": "a"}', "--metadata", "tenant=t1", "-m", "of=a=b")
    assert code == 0
    task = out.strip()
    assert ax.get_result_sync(task, 10) == "a"
    with Session(RUNTIME.engine) as db:
        detail = ax.activity.detail(db, task)
    assert detail.metadata == {"tenant": "t1", "of": "a=b"}


def test_enqueue_waits_for_a_text_and_prints_it_as_it_is(running: Deployment) -> None:
    code, out, err = enqueue(running, "work", '{"key": "Zoë"}', "--wait")
    assert (code, out) == (0, "Zoë\n")
    assert "waiting for its result" in err


def test_enqueue_waits_for_a_value_and_prints_it_as_json(running: Deployment) -> None:
    code, out, _ = enqueue(running, "work", '{"key": "a", "value": {"name": "研究"}}', "--wait")
    assert (code, json.loads(out)) == (0, {"name": "研究"})
    assert "研究" in out, "for people to read"


def test_enqueue_reads_a_context_from_a_file_or_standard_input(running: Deployment) -> None:
    (running.folder / "context.json").write_text('{"key": "from a file"}')
    assert enqueue(running, "work", "@context.json", "--wait")[:2] == (0, "from a file\n")
    assert enqueue(running, "work", "-", "--wait", text='{"key": "from a pipe"}')[:2] == (0, "from a pipe\n")


def test_enqueue_tells_of_a_task_that_failed(running: Deployment) -> None:
    code, out, err = enqueue(running, "fail", '{"key": "a"}', "--wait")
    assert (code, out) == (1, "")
    assert "failed after 1 attempt(s): ValueError: no luck with a" in err
    assert "agentexec: Task fail" in err
    assert "Traceback" not in err.split("agentexec: ")[0]


def test_enqueue_tells_of_a_task_that_is_late(running: Deployment) -> None:
    code, out, err = enqueue(running, "work", '{"key": "a"}', "--delay", "30", "--wait", "--timeout", "0.2")
    assert (code, out) == (1, "")
    assert "has not ended within 0.2 seconds" in err
    assert "Traceback" not in err


# ---- enqueue, without one ----------------------------------------------------------------------------------


@on("embedded", "valkey+sqlite")
def test_enqueue_takes_every_option(deploy: Deploy) -> None:
    deployment = deploy()
    low = enqueue(deployment, "work")[1].strip()
    high = enqueue(deployment, "work", "--priority", "HIGH", "--idempotency-key", "k")[1].strip()
    again = enqueue(deployment, "work", "-p", "high", "--idempotency-key", "k")[1].strip()
    elsewhere = enqueue(deployment, "work", "-Q", "reports")[1].strip()
    assert again == high
    claim = {"limit": 10, "low": 0, "lease_seconds": 30.0}
    backend = RUNTIME.backend
    assert [str(one.agent_id) for one in backend.claim("agentexec_tasks", "t", **claim).leases] == [high, low]
    assert [str(one.agent_id) for one in backend.claim("reports", "t", **claim).leases] == [elsewhere]


@on("embedded")
def test_cancel_pending_cancels_what_waits(deploy: Deploy) -> None:
    deployment = deploy()
    tasks = [deployment.enqueue("work", key) for key in "abc"]
    variables = {"AGENTEXEC_DATABASE_URL": deployment.environment["AGENTEXEC_DATABASE_URL"]}
    done = run_agentexec("cancel-pending", cwd=deployment.folder, text="n\n", **variables)
    assert done.returncode == 1
    assert [deployment.status(task) for task in tasks] == ["queued"] * 3
    done = run_agentexec("cancel-pending", "--yes", cwd=deployment.folder, **variables)
    assert (done.returncode, done.stdout) == (0, "Canceled 3 task(s).\n")
    assert [deployment.status(task) for task in tasks] == ["canceled"] * 3


# ---- what is never loaded ----------------------------------------------------------------------------------

LOADED = "import sys; print([name for name in {names} if name in sys.modules])"


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import agentexec", ["agents", "sqlalchemy", "redis", "typer", "rich", "alembic", "psutil"]),
        ("import agentexec as ax; ax.Pool, ax.enqueue, ax.Base, ax.activity.list", ["agents", "alembic"]),
        ("import agentexec.worker.supervisor", ["agents", "sqlalchemy", "redis", "alembic", "typer"]),
        ("import agentexec.cli.app", ["agents", "sqlalchemy", "redis", "alembic", "psutil"]),
        ("import agentexec.worker.template", ["agents", "typer", "rich", "alembic"]),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(program: str, absent: list[str], tmp_path: Path) -> None:
    done = run_python("-c", f"{program}\n{LOADED.format(names=absent)}", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


SPY = """
import atexit, os, sys
if "agentexec" in " ".join(sys.orig_argv) and "template" not in " ".join(sys.orig_argv):
    atexit.register(lambda: open(os.environ["SPY"], "w").write(" ".join(sys.modules)))
"""
"""A sitecustomize that writes down what a process of the command line had loaded when it ended."""


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"agents", "sqlalchemy", "redis", "alembic", "rich"}),
        (["migrate"], {"agents", "redis"}),
        (["enqueue", "work"], {"agents", "redis", "alembic"}),
        (["cancel-pending", "--yes"], {"agents", "redis", "alembic"}),
        (["worker", "no_such_module"], {"agents", "sqlalchemy", "redis", "alembic"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_no_command_loads_the_agents_sdk_and_the_supervisor_loads_no_database(
    arguments: list[str], absent: set[str], tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SPY)
    variables = {"PYTHONPATH": str(tmp_path / "site"), "SPY": str(tmp_path / "spy")}
    if arguments[0] in ("enqueue", "cancel-pending"):
        assert run_agentexec("migrate", cwd=tmp_path).returncode == 0
    run_agentexec(*arguments, cwd=tmp_path, **variables)
    loaded = set((tmp_path / "spy").read_text().split())
    assert "agentexec.cli.app" in loaded
    assert not loaded & absent

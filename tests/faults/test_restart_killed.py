"""kill -9 around the restart of a run that the code cannot replay: the old run is history once, and nothing runs twice."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

import agentexec as ax
from agentexec.journal.given_up import given_up_runs
from agentexec.journal.models import JournalEntry, JournalHistory
from agentexec.runtime import RUNTIME
from tests.deployment import REPOSITORY, Deploy, Deployment, on_one_target, run_python
from tests.waiting import patient

WHOLE = os.environ.get("AGENTEXEC_TEST_CRASHES") == "all"
MODULE = Path(__file__).parent / "restart_module.py"


@pytest.mark.thorough
@on_one_target("embedded", "postgres", alternates=False)
def test_a_restart_survives_a_kill_in_its_transaction(deploy: Deploy) -> None:
    killed = _restart_killed(deploy(max_crashes=50, worker_concurrency=1), [5])
    assert killed == 1


@pytest.mark.thorough
@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", ["postgres", "sqlite"] if WHOLE else ["postgres"])
def test_a_restart_killed_at_any_instant_ends_as_if_nothing_had_happened(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(f"{database}_tables")
    folder = tmp_path / "restarts"
    folder.mkdir()
    (folder / "ledger.txt").touch()
    done = run_python(
        "-m",
        "tests.faults.restart_program",
        str(folder),
        url,
        "1" if WHOLE else "3",
        cwd=REPOSITORY,
        timeout=patient(390),
        LEDGER=str(folder / "ledger.txt"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["complaints"] == []
    assert report["instants"] >= 15
    assert report["kills"] >= report["instants"] // (1 if WHOLE else 3)


def _restart_killed(deployment: Deployment, instants: Sequence[int]) -> int:
    """Run tasks with old code, deploy new code, kill each one's worker at its instant; return the number of kills."""
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    deployment.spawn(command, PYTHONPATH=str(REPOSITORY))
    tasks = {at: ax.enqueue_sync("sell", {"kill_at": at}) for at in instants}
    for task in tasks.values():
        deployment.wait_for(lambda task=task: _waits(deployment, task), timeout=60)
    before = {at: _paths(task, JournalEntry) for at, task in tasks.items()}
    (deployment.folder / "deployed").touch()
    for at in tasks:
        ax.send_event_sync("deployed", str(at))
    deployment.wait_for_ends(tasks.values(), timeout=150)
    lines = [line.split() for line in deployment.ledger_file.read_text().splitlines()]
    killed = {int(path.name.partition("-")[2]) for path in deployment.folder.glob("killed-*")}
    for at, task in tasks.items():
        detail = deployment.detail(task)
        what = (deployment.folder / f"killed-{at}").read_text() if at in killed else "not killed"
        assert detail.status is ax.Status.COMPLETE, (what, detail.error)
        assert ax.get_result_sync(task) == "Sold by new code. True", what
        with RUNTIME.engine.connect() as connection:
            [run] = given_up_runs(connection, task.agent_id)
        assert run.facts == len(before[at]), what
        assert _paths(task, JournalHistory) == sorted([*before[at], "/given-up"]), what
        old = [key for number, word, key in lines if (number, word) == (str(at), "old")]
        new = [key for number, word, key in lines if (number, word) == (str(at), "new")]
        assert len(old) == 1, what
        # An idempotent call that was cut off is made again, with the same key.
        assert len(set(new)) == 1 and len(new) <= 1 + (at in killed), what
        assert sum("went another way" in line.message for line in detail.logs) == 1, what
    return len(killed)


def _waits(deployment: Deployment, task: ax.Task) -> bool:
    detail = deployment.detail(task)
    waits = any(line.message.startswith("Waiting for event") for line in detail.logs)
    return waits and detail.status is ax.Status.QUEUED


def _paths(task: ax.Task, table: type[JournalEntry | JournalHistory]) -> list[str]:
    with RUNTIME.engine.connect() as connection:
        return sorted(connection.execute(select(table.path).where(table.agent_id == task.agent_id)).scalars())

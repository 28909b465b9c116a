"""Processes that tasks start: forked children, and programs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.conftest import Servers, ensure_running, reset_server
from tests.deployment import Deploy, Deployment, on_targets
from tests.waiting import patient, wait_until

pytestmark = pytest.mark.thorough

MODULE = Path(__file__).parent / "fork_module.py"


@pytest.fixture(scope="module")
def forking(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Deployment with two workers, each of which runs one task at a time."""
    folder = tmp_path_factory.mktemp("forking")
    database = f"forking_{folder.name}"
    url = ensure_running(servers.postgres).create_database(database)
    deployment = Deployment(
        folder,
        url,
        broker=reset_server(servers.valkey),
        database=servers.postgres,
        num_workers=2,
        worker_concurrency=1,
    )
    ax.Base.metadata.create_all(RUNTIME.engine)
    start(deployment)
    yield deployment
    deployment.close()
    ensure_running(servers.postgres).drop_database(database)


def start(deployment: Deployment) -> None:
    deployment.spawn([sys.executable, "-m", "agentexec", "worker", str(MODULE)])


def result(task: str, what: str) -> Any:
    return ax.get_result_sync(ax.enqueue_sync(task, {"what": what}), 40)


def test_a_terminated_child_ends_and_its_worker_stays(forking: Deployment) -> None:
    for kind in ("plain", "coroutine"):
        assert result(kind, "terminate") == [-15] * 5
    assert "Draining" not in forking.log


def test_an_interrupted_child_ends_as_in_any_program(forking: Deployment) -> None:
    assert result("plain", "interrupt") == 1
    assert "KeyboardInterrupt" in forking.log


def test_process_pools_work_and_their_end_does_not_stop_the_worker(forking: Deployment) -> None:
    assert result("plain", "pools") == [[0, 1, 4]] * 3
    assert "Draining" not in forking.log


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_programs_start_with_default_signals(forking: Deployment, kind: str) -> None:
    left_out = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup started the tests
    assert result(kind, "program") == ("['SIGHUP']\n" if left_out else "[]\n")


def test_a_child_forked_while_the_module_is_loaded_can_be_terminated(forking: Deployment) -> None:
    assert result("plain", "helper") == -15


@pytest.mark.parametrize(
    ("kind", "what", "code"),
    [
        ("plain", "returns", 0),
        ("plain", "raises", 1),
        ("plain", "exits", 3),
        ("coroutine", "returns", 0),
        ("coroutine", "raises", 1),
        ("coroutine", "exits", 3),
        ("coroutine", "awaits", 1),
    ],
)
def test_a_child_that_returns_to_the_worker_ends_there(
    forking: Deployment, kind: str, what: str, code: int
) -> None:
    task = ax.enqueue_sync(kind, {"what": what})
    assert ax.get_result_sync(task, patient(40)) == code
    assert forking.endings([task]) == [["complete"]]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_a_child_reports_and_enqueues_over_its_own_connections(forking: Deployment, kind: str) -> None:
    task = ax.enqueue_sync(kind, {"what": "report"})
    assert ax.get_result_sync(task, patient(40)) == 0, forking.log[-6000:]
    assert "A child reports." in [line.message for line in forking.detail(task).logs]
    assert result("echo", "afterwards") == "afterwards"


def test_random_numbers_differ_between_workers_unless_they_have_a_seed(forking: Deployment) -> None:
    tasks = [ax.enqueue_sync("throw", {"what": ""}) for _ in range(2)]
    own, shared, fixed = zip(*(ax.get_result_sync(task, patient(40)) for task in tasks), strict=True)
    assert own[0] != own[1]
    assert shared[0] != shared[1]
    assert fixed[0] == fixed[1]


@on_targets("embedded", alternates=False)
def test_a_child_is_told_that_sqlite_does_not_survive_a_fork_and_ends_with_its_worker(deploy: Deploy) -> None:
    deployment = deploy()
    start(deployment)
    assert result("plain", "report") == 1
    assert "SQLite does not survive a fork" in deployment.log
    children = [psutil.Process(pid) for pid in result("plain", "leave children")]
    assert deployment.stop() == 0
    wait_until(lambda: not any(child.is_running() for child in children))

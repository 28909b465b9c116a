"""A host that died with its workers is noticed long before its leases expire, and no other host is taken for dead."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select

from agentexec.activity.models import WorkerProcess
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.worker.host_watch import SILENCE_PART, HostWatch
from agentexec.worker.machine import Host, new_process_name, new_run_name
from tests.unit.worker.record import QUEUE, Record, open_record

TIMEOUT = 10.0
ELSEWHERE = "web-2:77:0badcafe.aaaaaa.10"


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


class Watched:
    """A watch whose clock the test moves, and the worker processes that it gave back."""

    def __init__(self, record: Record, host: str | None = None, timeout: float = TIMEOUT) -> None:
        self.record = record
        self.host = host or new_process_name(new_run_name(), timeout).rpartition(":")[0]
        self.recovered: dict[str, str] = {}
        self.queues: dict[str, list[str]] = {}
        settings = Settings(queue_name=QUEUE, host_timeout=timeout)
        self.watch = HostWatch(record.runtime, settings, f"{self.host}:maintenance", self._recover)

    def _recover(self, worker_id: str, reason: str, queues: Sequence[str]) -> int:
        self.recovered[worker_id] = reason
        self.queues[worker_id] = [*queues]
        return 1

    def look_until(self, clock: float, *, report: str | None = None) -> None:
        """Look every two seconds; `report`: the worker that reports before each look."""
        for second in range(0, int(clock) + 1, 2):
            if report is not None:
                add_report(self.record, report)
            self.watch.look(float(second))


def add_report(
    record: Record, worker_id: str, pid: int = 1, queue: str = QUEUE, queues: str | None = None
) -> None:
    """Add the report of a worker process, or a later one."""
    mine = WorkerProcess.worker_id == worker_id
    with writing(record.runtime.engine) as connection:
        before = connection.execute(select(WorkerProcess.seen_at).where(mine)).scalar()
        now = utc_now() if before is None else before + timedelta(seconds=5)
        row = {"worker_id": worker_id, "pid": pid, "queue": queue, "seen_at": now, "started_at": now}
        rest = {
            "queues": queues,
            "host": "h",
            "concurrency": 1,
            "running": 1,
            "draining": False,
            "cpu_percent": 0.0,
        }
        connection.execute(delete(WorkerProcess).where(mine))
        connection.execute(insert(WorkerProcess).values(rss_bytes=1, **row, **rest))


def reported(record: Record) -> list[str]:
    with reading(record.runtime.engine) as connection:
        return sorted(connection.execute(select(WorkerProcess.worker_id)).scalars())


def dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def on_this_machine(supervisor_pid: int) -> str:
    host = Host.of(new_process_name(new_run_name(), TIMEOUT))
    assert host is not None
    return f"web-1:{supervisor_pid}:{host.machine}.bbbbbb.10:worker"


def elsewhere(timeout: float) -> str:
    return f"web-2:77:0badcafe.aaaaaa.{timeout:g}"


def test_workers_killed_with_their_supervisor_on_this_machine_are_noticed_at_the_first_look(
    record: Record,
) -> None:
    killed = on_this_machine(dead_pid())
    add_report(record, killed, pid=dead_pid())
    watched = Watched(record)
    watched.watch.look(0.0)
    assert watched.recovered == {killed: "died together with its supervisor"}
    assert reported(record) == []


@pytest.mark.parametrize("living", ["worker", "supervisor"])
def test_a_worker_of_this_machine_is_left_to_its_supervisor_while_either_lives(
    record: Record, living: str
) -> None:
    pids = {"supervisor": dead_pid(), "worker": dead_pid(), living: os.getppid()}
    worker = on_this_machine(pids["supervisor"])
    add_report(record, worker, pid=pids["worker"])
    watched = Watched(record)
    watched.watch.look(0.0)
    assert watched.recovered == {}
    assert reported(record) == [worker]


def test_a_silent_host_is_given_up_within_the_timeout(record: Record) -> None:
    lost = f"{ELSEWHERE}:worker"
    other = Watched(record, ELSEWHERE)
    other.watch.look(0.0)
    add_report(record, lost)
    watched = Watched(record)
    watched.look_until(TIMEOUT * 0.5)
    assert watched.recovered == {}
    record.backend.release_leadership(
        f"host:{ELSEWHERE}", ELSEWHERE
    )  # the memory backend's clock does not move
    watched.watch.look(6.0)
    assert watched.recovered == {lost: "has not answered for 10 s, nor its host"}
    assert reported(record) == []


def test_a_host_whose_workers_are_stalled_is_alive(record: Record) -> None:
    other, watched = Watched(record, ELSEWHERE), Watched(record)
    other.watch.look(0.0)
    add_report(record, f"{ELSEWHERE}:worker")
    watched.look_until(4 * TIMEOUT)
    assert watched.recovered == {}


def test_a_host_whose_workers_report_is_alive_even_without_a_maintenance_process(record: Record) -> None:
    watched = Watched(record)
    watched.look_until(4 * TIMEOUT, report=f"{ELSEWHERE}:worker")
    assert watched.recovered == {}


def test_after_an_outage_nobody_counts_as_silent(record: Record) -> None:
    add_report(record, f"{ELSEWHERE}:worker")
    watched = Watched(record)
    watched.look_until(4.0)
    watched.watch.look(500.0)
    watched.watch.look(504.0)
    assert watched.recovered == {}
    watched.watch.look(506.0)
    assert list(watched.recovered) == [f"{ELSEWHERE}:worker"]


def test_workers_of_other_queues_and_earlier_releases_are_left_alone(record: Record) -> None:
    add_report(record, f"{ELSEWHERE}:worker", queue="another")
    add_report(record, "web-3:12:0123456789")
    watched = Watched(record)
    watched.look_until(4 * TIMEOUT)
    assert watched.recovered == {}


def test_of_two_hosts_that_notice_a_death_one_acts(record: Record) -> None:
    add_report(record, f"{ELSEWHERE}:worker")
    first, second = Watched(record), Watched(record)
    for second_of_clock in (0.0, 2.0, 4.0):
        first.watch.look(second_of_clock)
        second.watch.look(second_of_clock)
    record.backend.acquire_leadership(f"host:{ELSEWHERE}", first.host, TIMEOUT * SILENCE_PART)
    second.watch.look(6.0)
    first.watch.look(6.0)
    assert second.recovered == {}
    assert list(first.recovered) == [f"{ELSEWHERE}:worker"]


def test_a_host_that_was_given_up_says_so_once(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(record)
    record.backend.acquire_leadership(f"host:{watched.host}", "another", TIMEOUT * SILENCE_PART)
    watched.look_until(6.0)
    assert caplog.text.count("Another host has found this one dead") == 1


@pytest.mark.parametrize("timeout", [TIMEOUT, 600])
def test_the_signs_of_life_of_a_host_count_whatever_the_timeout(record: Record, timeout: int) -> None:
    """A leadership that lasts much longer than others ask for does not count, so all ask for the same length."""
    host = elsewhere(timeout)
    other, watched = Watched(record, host, timeout), Watched(record, timeout=timeout)
    add_report(record, f"{host}:worker")
    other.watch.look(0.0)
    watched.watch.look(0.0)
    watched.watch.look(0.3 * timeout)
    watched.watch.look(0.6 * timeout)
    assert watched.recovered == {}


def test_a_host_that_stops_in_order_leaves_no_sign(record: Record) -> None:
    watched = Watched(record)
    watched.watch.start()
    watched.watch.look(0.0)
    watched.watch.stop()
    assert record.backend.acquire_leadership(f"host:{watched.host}", "another", 1)


def test_a_process_without_a_host_name_watches_nobody(record: Record) -> None:
    add_report(record, f"{ELSEWHERE}:worker")
    watch = HostWatch(
        record.runtime, Settings(queue_name=QUEUE), "owner", lambda *_: pytest.fail("recovered")
    )
    for clock in range(0, 100, 2):
        watch.look(float(clock))


@pytest.mark.parametrize(("shorter", "longer"), [(10.0, 300.0), (600.0, 3_600.0)])
def test_a_host_with_a_longer_timeout_than_those_who_look_is_alive_while_it_holds_its_leadership(
    record: Record, shorter: float, longer: float
) -> None:
    """Its leadership lasts for longer than theirs ever would, but nobody has forged it."""
    host = elsewhere(longer)
    add_report(record, f"{host}:worker")
    other, watched = Watched(record, host, longer), Watched(record, timeout=shorter)
    other.watch.look(0.0)
    clock = 0.0
    while clock < 0.7 * longer:
        watched.watch.look(clock)
        clock += shorter / 5
    assert watched.recovered == {}


def test_a_host_is_silent_by_its_own_timeout(record: Record) -> None:
    """Its workers report every five seconds: nothing for those who look every second."""
    host = elsewhere(100)
    add_report(record, f"{host}:worker")
    watched = Watched(record, timeout=5.0)
    for second in range(60):
        watched.watch.look(float(second))
    assert watched.recovered == {}
    watched.watch.look(60.0)
    assert watched.recovered == {f"{host}:worker": "has not answered for 100 s, nor its host"}


def test_a_host_with_a_shorter_timeout_is_looked_at_as_often_as_it_looks_itself(record: Record) -> None:
    watched = Watched(record, timeout=300.0)
    watched.watch.look(0.0)
    assert watched.watch._pause == 60.0
    add_report(record, f"{elsewhere(5)}:worker")
    for second in (60.0, 61.0, 62.0):
        watched.watch.look(second)
        assert watched.watch._pause == 1.0
    assert watched.recovered == {}
    watched.watch.look(63.0)
    assert list(watched.recovered) == [f"{elsewhere(5)}:worker"]
    watched.watch.look(64.0)
    assert watched.watch._pause == 60.0


def test_few_looks_do_not_make_a_host_with_a_short_timeout_silent(record: Record) -> None:
    """Between two looks the database may have been away, for the other host as well."""
    watched = Watched(record, timeout=300.0)
    add_report(record, f"{elsewhere(5)}:worker")
    for second in range(0, 600, 60):
        watched.watch.look(float(second))
    assert watched.recovered == {}


def test_a_dead_host_is_noticed_through_any_queue_and_loses_the_tasks_of_all(record: Record) -> None:
    killed = [on_this_machine(dead_pid()) + name for name in "ab"]
    add_report(record, killed[0], pid=dead_pid(), queue="high", queues=f'["high", "{QUEUE}"]')
    add_report(record, killed[1], pid=dead_pid(), queue="high", queues='["high", "low"]')
    watched = Watched(record)
    watched.watch.look(0.0)
    assert watched.queues == {killed[0]: ["high", QUEUE]}
    assert reported(record) == [killed[1]], "this host serves none of its queues"


@pytest.mark.parametrize("queues", ["no JSON", "{}", "[]", "[3]", "[" * 100_000, "null"])
def test_queues_that_cannot_be_read_leave_the_first(record: Record, queues: str) -> None:
    killed = on_this_machine(dead_pid())
    add_report(record, killed, pid=dead_pid(), queues=queues)
    watched = Watched(record)
    watched.watch.look(0.0)
    assert watched.queues == {killed: [QUEUE]}

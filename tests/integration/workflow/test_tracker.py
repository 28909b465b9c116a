"""The tracker: a count that many tasks share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets
from tests.waiting import patient

everywhere = on_targets("embedded", "postgres", "valkey+sqlite")


@everywhere
def test_a_tracker_counts_unfinished_work(deploy: Deploy) -> None:
    deploy()
    batch = uuid4()
    tracker = ax.Tracker("research", batch)
    assert [tracker.incr(), tracker.incr(), tracker.incr(3)] == [1, 2, 5]
    assert not tracker.complete
    assert [tracker.decr(3), tracker.decr()] == [2, 1]
    assert not tracker.complete
    assert tracker.decr() == 0
    assert tracker.complete


@everywhere
def test_the_same_parts_are_the_same_tracker_and_others_are_not(deploy: Deploy) -> None:
    deploy()
    batch = uuid4()
    ax.Tracker("research", batch).incr()
    assert ax.Tracker("research", str(batch)).count == 1
    assert ax.Tracker("research", uuid4()).count == 0
    assert ax.Tracker("other", batch).count == 0


@on_targets("embedded")
def test_parts_are_kept_apart(deploy: Deploy) -> None:
    deploy()
    ax.Tracker("research", "a:b", "c").incr()
    assert ax.Tracker("research", "a", "b:c").count == 0


@on_targets("embedded")
def test_a_tracker_that_counts_again_is_no_longer_complete(deploy: Deploy) -> None:
    deploy()
    tracker = ax.Tracker("research", "batch")
    tracker.incr()
    tracker.decr()
    assert tracker.complete
    tracker.incr()
    assert not tracker.complete


@on_targets("embedded")
def test_a_tracker_needs_a_name(deploy: Deploy) -> None:
    with pytest.raises(ax.UsageError, match="name= must not be empty"):
        ax.Tracker("")


@everywhere
def test_exactly_one_of_several_concurrent_threads_sees_the_tracker_complete(deploy: Deploy) -> None:
    deploy()
    tracker = ax.Tracker("research", "batch")
    tracker.incr(16)
    together = threading.Barrier(16)

    def end(_number: int) -> bool:
        together.wait()
        tracker.decr()
        return tracker.complete

    with ThreadPoolExecutor(16) as threads:
        assert sorted(threads.map(end, range(16))) == [False] * 15 + [True]


@everywhere
async def test_exactly_one_of_several_concurrent_coroutines_sees_the_tracker_complete(deploy: Deploy) -> None:
    deploy()
    tracker = ax.Tracker("research", "batch")
    for _ in range(16):
        tracker.incr()

    async def end() -> bool:
        tracker.decr()
        await asyncio.sleep(0)
        return tracker.complete

    assert sorted(await asyncio.gather(*(end() for _ in range(16)))) == [False] * 15 + [True]


@pytest.mark.thorough
@on_targets("embedded", "valkey+sqlite")
def test_counts_of_several_processes_are_not_lost(deploy: Deploy) -> None:
    deployment = deploy()
    program = "import agentexec as ax; t = ax.Tracker('research', 'batch'); [t.incr() for _ in range(100)]"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=deployment.environment) for _ in range(3)
    ]
    assert [process.wait(patient(20)) for process in processes] == [0, 0, 0]
    assert ax.Tracker("research", "batch").count == 300

"""Canceling tasks in every state, with a worker that runs all the time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.deployment import Deployment
from tests.waiting import patient

HEARD = patient(2.5)
"""Seconds within which a worker learns of a cancel: it gets a message, and need not find out by itself."""


@pytest.fixture
def key() -> str:
    """Return a name that no other test has used in the ledger."""
    return f"key-{uuid4()}"


async def test_a_queued_task_never_starts(running: Deployment, key: str) -> None:
    task = await ax.enqueue("work", {"key": key}, delay=patient(1.0))
    assert await ax.cancel(task) is True
    after = await ax.enqueue("work", {"key": "after"}, delay=patient(1.0) + 0.3)
    await ax.get_result(after, timeout=patient(10))
    assert running.ledger("start")[key] == 0
    assert running.endings([task]) == [["canceled"]]


async def test_a_running_handler_gets_canceled_error_and_frees_its_slot(
    running: Deployment, key: str
) -> None:
    task = await ax.enqueue("waits_for_cancel", {"key": key})
    running.wait_for_start(key)
    told = time.monotonic()
    assert await ax.cancel(task.agent_id) is True
    running.wait_for(lambda: running.ledger("canceled")[key] == 1)
    assert time.monotonic() - told < HEARD
    with pytest.raises(ax.TaskCanceledError):
        await ax.get_result(task, timeout=patient(5))
    assert running.endings([task]) == [["canceled"]]
    # More tasks than slots, each for the whole time, show that all slots are free again and no others.
    others = [await ax.enqueue("work", {"key": f"{key}-{number}"}) for number in range(20)]
    await ax.gather(*others, timeout=patient(10))
    running.wait_for(lambda: running.depth() == 0)


async def test_a_plain_function_runs_to_its_end_and_its_result_is_dropped(
    running: Deployment, key: str
) -> None:
    task = await ax.enqueue("sync_work", {"key": key, "seconds": 0.5})
    running.wait_for_start(key)
    assert await ax.cancel(task) is True
    running.wait_for(lambda: running.ledger("end")[key] == 1)
    after = await ax.enqueue("sync_work", {"key": "after"})
    await ax.get_result(after, timeout=patient(10))
    assert running.endings([task]) == [["canceled"]]
    assert running.ledger("start")[key] == 1


async def test_a_handler_that_ignores_the_cancel_is_canceled_anyway(running: Deployment, key: str) -> None:
    task = await ax.enqueue("stubborn", {"key": key, "seconds": 0.7})
    running.wait_for_start(key)
    assert await ax.cancel(task) is True
    running.wait_for(lambda: running.ledger("refused")[key] == 1)
    after = await ax.enqueue("work", {"key": "after", "seconds": 0.8})
    await ax.get_result(after, timeout=patient(10))
    assert running.endings([task]) == [["canceled"]]


async def test_a_finished_task_stays_as_it_ended(running: Deployment, key: str) -> None:
    task = await ax.enqueue("work", {"key": key})
    await ax.get_result(task, timeout=patient(10))
    assert await ax.cancel(task) is False
    assert await ax.get_result(task) == key
    assert running.endings([task]) == [["complete"]]


async def test_a_task_waiting_for_its_next_attempt_is_canceled(running: Deployment, key: str) -> None:
    task = await ax.enqueue("flaky", {"key": key, "times": 3})
    running.wait_for(lambda: "Attempt 1 failed" in running.detail(task).logs[-1].message)
    assert await ax.cancel(task) is True
    assert running.endings([task]) == [["canceled"]]
    assert running.ledger("start")[key] == 1
    running.wait_for(lambda: running.depth() == 0)


async def test_an_unknown_task_raises_an_error_that_names_it(running: Deployment) -> None:
    with pytest.raises(ax.ActivityNotFoundError):
        await ax.cancel(uuid4())


async def test_a_new_task_with_the_key_of_a_canceled_one_is_another_one(
    running: Deployment, key: str
) -> None:
    task = await ax.enqueue("work", {"key": key}, delay=60, idempotency_key=key)
    await ax.cancel(task)
    assert await ax.enqueue("work", {"key": key}, idempotency_key=key, keep_key=True) == task
    other = await ax.enqueue("work", {"key": key}, idempotency_key=key)
    assert await ax.get_result(other, timeout=patient(10)) == key


def test_only_one_of_many_concurrent_cancels_ends_the_task(running: Deployment, key: str) -> None:
    task = running.enqueue("waits_for_cancel", key)
    running.wait_for_start(key)
    with ThreadPoolExecutor(6) as threads:
        outcomes = list(threads.map(lambda _: ax.cancel_sync(task), range(6)))
    assert sorted(outcomes) == [False] * 5 + [True]
    assert running.endings([task]) == [["canceled"]]


def test_canceling_races_completion_and_the_task_has_one_end(running: Deployment, key: str) -> None:
    tasks = [running.enqueue("work", f"{key}-{number}", seconds=0.02 * number) for number in range(10)]
    canceled = [ax.cancel_sync(task) for task in tasks]
    running.wait_for_ends(tasks)
    statuses = ["canceled" if was_canceled else "complete" for was_canceled in canceled]
    assert running.endings(tasks) == [[status] for status in statuses]


def test_canceling_pending_tasks_leaves_running_tasks_alone(running: Deployment, key: str) -> None:
    running_task = running.enqueue("work", key, seconds=0.5)
    running.wait_for_start(key)
    pending = [ax.enqueue_sync("work", {"key": f"{key}-{number}"}, delay=0.2) for number in range(3)]
    with Session(RUNTIME.engine) as db:
        assert ax.activity.cancel_pending(db) == 3
        assert ax.activity.cancel_pending(db) == 0
    assert ax.get_result_sync(running_task, patient(10)) == key
    assert running.endings(pending) == [["canceled"]] * 3
    assert not any(running.ledger("start")[f"{key}-{number}"] for number in range(3))

"""Waiting for results, with a worker that runs all the time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity import receiver
from agentexec.activity.mailbox import Mailbox
from agentexec.activity.models import Activity, ActivityResult
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME
from agentexec.worker.expiry import expire
from tests.deployment import Deployment
from tests.waiting import patient

PUSHED = 30.0
"""Seconds within which a result that is pushed arrives, even on a slow machine."""

NOBODY = "nobody_works_on_this_queue"


class Sum(BaseModel):
    total: int


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this process from looking at the record for ends that it was not told of."""
    monkeypatch.setattr("agentexec.activity.receiver.CHECK_SECONDS", 600.0)


@pytest.mark.parametrize(
    "value",
    ["text", 7, 1.5, True, [1, None, {"a": []}], {"answer": {"of": 42}}, "Zoë 研究 🚀 \u0000"],
    ids=repr,
)
async def test_a_result_is_any_json_value(running: Deployment, value: Any) -> None:
    task = await ax.enqueue("work", {"key": "value", "value": value})
    assert await ax.get_result(task, timeout=patient(10)) == value


async def test_a_result_may_be_nothing(running: Deployment) -> None:
    task = await ax.enqueue("report", {"key": "nothing"})
    assert await ax.get_result(task, timeout=patient(10)) is None


async def test_a_model_comes_back_as_plain_data_where_the_task_is_not_known(running: Deployment) -> None:
    task = await ax.enqueue("add", {"key": "a", "times": 1})
    assert await ax.get_result(task, timeout=patient(10)) == {"total": 2}


async def test_a_model_comes_back_as_the_type_that_the_caller_names(running: Deployment) -> None:
    task = await ax.enqueue("add", {"key": "a", "times": 1})
    assert await ax.get_result(task, timeout=patient(10), type=Sum) == Sum(total=2)
    assert await ax.get_result(task, type=dict[str, float]) == {"total": 2.0}
    with pytest.raises(ax.UsageError, match="does not fit the wanted type"):
        await ax.get_result(task, type=list[int])


async def test_a_model_comes_back_as_the_handlers_type_where_the_task_is_known(running: Deployment) -> None:
    pool = ax.Pool()

    @pool.task("add")
    async def add(agent_id: UUID, context: dict[str, Any]) -> Sum:
        raise AssertionError("the worker has a handler of its own")

    task = await ax.enqueue("add", {"key": "a", "times": 1})
    assert await ax.get_result(task, timeout=patient(10)) == Sum(total=2)
    assert await ax.gather(task) == [Sum(total=2)]


async def test_the_agent_id_is_enough(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "a"})
    assert await ax.get_result(task.agent_id, timeout=patient(10)) == "a"
    assert await ax.get_result(str(task.agent_id)) == "a"
    assert ax.get_result_sync(str(task.agent_id)) == "a"


@pytest.mark.usefixtures("no_looks")
async def test_a_result_is_pushed_rather_than_looked_up(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "a", "seconds": 0.3})
    await ax.get_result(task, timeout=patient(60))
    heard = utc_now()
    ended = running.detail(task).finished_at
    assert ended is not None
    assert heard - ended < timedelta(seconds=PUSHED)


async def test_a_result_can_be_read_again(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "a"})
    assert [await ax.get_result(task, timeout=patient(10)) for _ in range(3)] == ["a"] * 3


# ---- ends without a result -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_looks")
async def test_a_failure_is_raised_as_soon_as_it_happened(running: Deployment) -> None:
    task = await ax.enqueue("fail", {"key": "a"})
    started = time.monotonic()
    with pytest.raises(ax.TaskFailedError, match="ValueError: no luck with a") as failure:
        await ax.get_result(task, timeout=patient(60))
    assert time.monotonic() - started < PUSHED
    assert failure.value.task_name == "fail"
    assert failure.value.agent_id == task.agent_id
    assert failure.value.attempts == 1
    assert "no luck with a" in str(failure.value.error)
    assert "worker_module.py" in str(failure.value.error), "the record has the traceback"


@pytest.mark.parametrize(
    ("task_name", "reason"),
    [
        ("exits", "SystemExit: 3"),
        ("unserializable", "cannot be written as JSON"),
        ("slow", "took longer than 0.3 seconds"),
    ],
)
async def test_a_task_that_cannot_succeed_fails_alone(
    running: Deployment, task_name: str, reason: str
) -> None:
    beside = await ax.enqueue("work", {"key": "beside", "seconds": 0.5})
    task = await ax.enqueue(task_name, {"key": "a"})
    with pytest.raises(ax.TaskFailedError, match=reason):
        await ax.get_result(task, timeout=patient(10))
    assert await ax.get_result(beside, timeout=patient(10)) == "beside"


async def test_a_context_that_does_not_fit_fails_at_the_worker_with_the_field_named(
    running: Deployment,
) -> None:
    task = await ax.enqueue("work", {"key": "a", "times": "often"})
    with pytest.raises(ax.TaskFailedError, match="work is not valid: times: Input should be a valid integer"):
        await ax.get_result(task, timeout=patient(10))


async def test_a_retried_task_returns_the_result_of_its_last_attempt(running: Deployment) -> None:
    task = await ax.enqueue("flaky", {"key": f"flaky-{uuid4()}", "times": 1})
    assert await ax.get_result(task, timeout=patient(20)) == "done at try 2"
    detail = running.detail(task)
    assert (detail.attempt, detail.error) == (2, None)
    assert any("Attempt 1 failed with RuntimeError: try 1" in line.message for line in detail.logs)


async def test_a_wait_ends_in_time_and_can_be_repeated(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "late", "seconds": 0.6})
    with pytest.raises(TimeoutError, match=f"{task.agent_id} has not ended within 0.1 seconds"):
        await ax.get_result(task, timeout=0.1)
    with pytest.raises(TimeoutError):
        ax.get_result_sync(task, timeout=0.1)
    assert await ax.get_result(task, timeout=patient(10)) == "late"


@pytest.mark.usefixtures("no_looks")
async def test_a_cancel_is_raised_as_soon_as_it_happened(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "a"}, queue_name=NOBODY)
    waiting = asyncio.create_task(ax.get_result(task, timeout=patient(60)))
    await asyncio.sleep(0)
    assert await ax.cancel(task)
    with pytest.raises(ax.TaskCanceledError, match=r"was canceled\."):
        await asyncio.wait_for(waiting, PUSHED)


async def test_an_expired_result_raises_an_error_that_says_so(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "a"})
    await ax.get_result(task, timeout=patient(10))
    with RUNTIME.engine.begin() as connection:
        # An hour and a day later, after the reconciler has removed expired results.
        connection.execute(delete(ActivityResult).where(ActivityResult.agent_id == task.agent_id))
        long_ago = utc_now() - timedelta(hours=25)
        connection.execute(
            update(Activity).where(Activity.agent_id == task.agent_id).values(finished_at=long_ago)
        )
    with pytest.raises(ax.ResultExpiredError, match="AGENTEXEC_RESULT_TTL"):
        await ax.get_result(task, timeout=patient(10))
    assert running.status(task) == "complete"


async def test_an_unknown_id_raises_an_error_that_names_it(running: Deployment) -> None:
    unknown = uuid4()
    with pytest.raises(ax.ActivityNotFoundError, match=str(unknown)):
        await ax.get_result(unknown, timeout=patient(10))


# ---- many at once ------------------------------------------------------------------------------------------


async def test_gather_keeps_the_order_of_its_arguments(running: Deployment) -> None:
    tasks = [
        await ax.enqueue("work", {"key": f"{number}", "seconds": (4 - number) / 10}) for number in range(4)
    ]
    assert await ax.gather(*tasks, tasks[0]) == ["0", "1", "2", "3", "0"]
    assert await ax.gather() == []


async def test_gather_raises_the_first_failure_and_the_others_go_on(running: Deployment) -> None:
    late = await ax.enqueue("work", {"key": "late", "seconds": 0.8})
    bad = await ax.enqueue("fail", {"key": "bad"})
    with pytest.raises(ax.TaskFailedError):
        await ax.gather(late, bad, timeout=patient(10))
    assert running.status(late) in ("queued", "running")
    assert await ax.get_result(late, timeout=patient(10)) == "late"


async def test_gather_can_return_failures_in_their_places(running: Deployment) -> None:
    good = await ax.enqueue("work", {"key": "good"})
    bad = await ax.enqueue("fail", {"key": "bad"})
    canceled = await ax.enqueue("work", {"key": "a"}, queue_name=NOBODY)
    await ax.cancel(canceled)
    results = await ax.gather(bad, good, canceled, return_exceptions=True)
    assert [type(result) for result in results] == [ax.TaskFailedError, str, ax.TaskCanceledError]


async def test_gather_has_one_time_limit_for_all(running: Deployment) -> None:
    good = await ax.enqueue("work", {"key": "good"})
    never = await ax.enqueue("work", {"key": "a"}, queue_name=NOBODY)
    with pytest.raises(TimeoutError, match=r"within 0\.3 seconds"):
        await ax.gather(good, never, timeout=0.3)


def test_gather_sync_keeps_the_order_of_its_arguments(running: Deployment) -> None:
    tasks = ax.enqueue_many_sync("work", [{"key": "a", "seconds": 0.3}, {"key": "b"}, {"key": "c"}])
    assert ax.gather_sync(*tasks, timeout=patient(10)) == ["a", "b", "c"]
    assert ax.gather_sync(*(task.agent_id for task in reversed(tasks)), timeout=patient(10)) == [
        "c",
        "b",
        "a",
    ]


def test_gather_sync_has_one_time_limit_for_all(running: Deployment) -> None:
    tasks = ax.enqueue_many_sync("work", [{"key": "a"}, {"key": "b"}], queue_name=NOBODY)
    with pytest.raises(TimeoutError, match=r"2 tasks have not ended within 0\.1 seconds"):
        ax.gather_sync(*tasks, timeout=0.1)


def test_as_completed_sync_yields_tasks_in_the_order_in_which_they_end(running: Deployment) -> None:
    tasks = [
        ax.enqueue_sync("work", {"key": key, "seconds": seconds})
        for key, seconds in (("slow", 1.0), ("fast", 0.0))
    ]
    assert [done.result() for done in ax.as_completed_sync(tasks, timeout=patient(20))] == ["fast", "slow"]


def test_map_sync_returns_results_in_the_order_of_the_contexts(running: Deployment) -> None:
    contexts = [{"key": f"{number}"} for number in range(20)]
    assert ax.map_sync("work", contexts, max_in_flight=8, timeout=patient(30)) == [
        context["key"] for context in contexts
    ]


async def test_a_hundred_wait_for_the_same_task_and_a_hundred_for_each_their_own(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "same", "seconds": 0.5})
    tasks = await ax.enqueue_many("work", [{"key": f"{number}"} for number in range(100)])
    same = asyncio.gather(*(ax.get_result(task, timeout=patient(20)) for _ in range(100)))
    own = asyncio.gather(*(ax.get_result(own_task, timeout=patient(20)) for own_task in tasks))
    assert await same == ["same"] * 100
    assert await own == [f"{number}" for number in range(100)]


@pytest.mark.thorough
def test_several_processes_and_threads_wait_for_the_same_task(running: Deployment) -> None:
    task = running.enqueue("work", "a", seconds=3)
    program = f"import agentexec as ax; print(ax.get_result_sync({str(task.agent_id)!r}, {patient(20)}))"
    waiting = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=running.environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    with ThreadPoolExecutor(8) as threads:
        heard = list(threads.map(lambda _: ax.get_result_sync(task, patient(20)), range(8)))
    assert heard == ["a"] * 8
    assert [process.communicate(timeout=patient(20))[0] for process in waiting] == ["a\n"] * 3


async def test_a_task_may_enqueue_others_and_wait_for_them(running: Deployment) -> None:
    task = await ax.enqueue("parent", {"key": "parent", "times": 4})
    assert await ax.get_result(task, timeout=patient(20)) == 1 + 2 + 3 + 4


# ---- progress ----------------------------------------------------------------------------------------------


async def test_progress_is_in_the_record_in_order_before_the_end(running: Deployment) -> None:
    task = await ax.enqueue("report", {"key": "a", "times": 4, "seconds": 0.05})
    await ax.get_result(task, timeout=patient(10))
    detail = running.detail(task)
    assert [(line.status, line.message, line.percentage) for line in detail.logs] == [
        ("queued", "Waiting to start.", 0),
        ("running", "Task started.", 0),
        ("running", "Step 1 of 4", 0),
        ("running", "Step 2 of 4", 25),
        ("running", "Step 3 of 4", 50),
        ("running", "Step 4 of 4", 75),
        ("complete", "Task completed successfully.", 100),
    ]
    assert (detail.percentage, detail.status) == (100, "complete")


async def test_progress_is_seen_while_the_task_runs(running: Deployment) -> None:
    task = await ax.enqueue("report", {"key": "a", "times": 2, "seconds": 1})
    with Session(RUNTIME.engine) as db:
        running.wait_for(lambda: running.detail(task).logs[-1].message == "Step 1 of 2", timeout=5)
        [item] = [item for item in ax.activity.list(db).items if item.agent_id == task.agent_id]
    assert (item.status, item.latest_log_message) == ("running", "Step 1 of 2")
    await ax.cancel(task)


def test_results_of_children_are_kept_until_their_parent_has_ended(running: Deployment) -> None:
    """Check the results that a parent asks for again when it runs again from its top, perhaps after hours."""
    child, other = (running.enqueue("work", key) for key in ("child", "other"))
    running.wait_for_ends([child, other])
    ids = [child.agent_id, other.agent_id]
    parent = ax.enqueue_sync("work", {"key": "parent"}, delay=3600)
    with RUNTIME.engine.begin() as connection:
        of_child = update(Activity).where(Activity.agent_id == child.agent_id)
        connection.execute(of_child.values(parent_id=parent.agent_id))
        over = utc_now() - timedelta(seconds=1)
        connection.execute(
            update(ActivityResult).where(ActivityResult.agent_id.in_(ids)).values(expires_at=over)
        )

    def kept_after_expiry() -> list[UUID]:
        expire(RUNTIME.engine, utc_now())
        query = select(ActivityResult.agent_id).where(ActivityResult.agent_id.in_(ids))
        with RUNTIME.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    assert kept_after_expiry() == [child.agent_id]
    assert ax.get_result_sync(child) == "child"
    assert ax.cancel_sync(parent)
    assert kept_after_expiry() == []


def test_an_end_without_a_message_is_found_while_other_messages_keep_coming(
    running: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check the case in which Redis, and the watches with it, was emptied, while messages about newer tasks keep coming."""
    monkeypatch.setattr(receiver, "CHECK_SECONDS", 0.5)
    task = ax.enqueue_sync("work", {"key": "a"}, queue_name=NOBODY)
    ears = Mailbox(RUNTIME)
    [end] = ears.watch(NOBODY, [task.agent_id])
    over = threading.Event()
    with ThreadPoolExecutor() as threads:
        threads.submit(chatter, ears.address, over)
        ax.activity.complete(task.agent_id)
        try:
            assert end.result(5).status == "complete"
        finally:
            over.set()
            ears.close()


def chatter(mailbox: str, over: threading.Event) -> None:
    while not over.wait(0.05):
        RUNTIME.backend.send(mailbox, [f"done {uuid4()}"])

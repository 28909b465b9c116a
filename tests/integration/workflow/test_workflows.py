"""Pipelines, children, waits and trackers, run inline: what is recorded, and what a further attempt finds."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityResult
from agentexec.runtime import RUNTIME


class Job(BaseModel):
    key: str = "job"
    number: int = 0


class Total(BaseModel):
    value: int


class Office:
    """A pool with tasks that count their runs."""

    def __init__(self) -> None:
        self.pool = ax.Pool(database_url="sqlite://")
        self.ran: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        """How often something is to fail yet."""
        pool = self.pool

        @pool.task("double")
        async def double(agent_id: UUID, context: Job) -> int:
            self.run(f"double {context.number}")
            return context.number * 2

        @pool.task("fails")
        async def fails(agent_id: UUID, context: Job) -> int:
            self.run(f"fails {context.number}")
            raise ValueError(f"no {context.number}")

    def run(self, what: str) -> None:
        self.ran[what] += 1
        if self.faults[what]:
            self.faults[what] -= 1
            raise RuntimeError(f"fault in {what}")


@pytest.fixture
def office() -> Office:
    return Office()


def children(task: UUID) -> list[str]:
    with Session(RUNTIME.engine) as db:
        return [str(child.status) for child in ax.activity.detail(db, task).children]


def three_steps(office: Office, **options: Any) -> ax.Pipeline:
    pipeline = ax.Pipeline(office.pool, **options)

    class Sums(pipeline.Base):
        @pipeline.step(0, "fanning out")
        async def fan_out(self, context: Job) -> tuple[Total, Total]:
            office.run("fan_out")
            tasks = [await ax.enqueue("double", Job(number=n)) for n in range(context.number)]
            values = await ax.gather(*tasks)
            office.run("fan_out ends")
            return Total(value=sum(values)), Total(value=len(values))

        @pipeline.step(1, "adding")
        def add(self, total: Total, count: Total) -> Total:
            office.run("add")
            return Total(value=total.value + count.value)

        @pipeline.step(2)
        async def end(self, total: Total) -> Total:
            office.run("end")
            return total

    return pipeline


async def test_steps_in_order_with_their_progress_and_children(office: Office) -> None:
    three_steps(office)
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=4))
        assert (task.status, task.result) == ("complete", Total(value=16)), task.error
        assert task.messages == [
            "Waiting to start.",
            "Task started.",
            "Step 1 of 3: fanning out",
            "Step 2 of 3: adding",
            "Step 3 of 3: end",
            "Task completed successfully.",
        ]
        assert [line.percentage for line in task.log] == [0, 0, 0, 33, 66, 100]
        assert children(task.agent_id) == ["complete"] * 4
        assert all(count == 1 for count in office.ran.values())


async def test_a_retry_goes_on_at_the_step_that_failed(office: Office) -> None:
    three_steps(office, retries=2)
    office.faults["end"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=2))
        assert (task.status, task.attempts) == ("complete", 2), task.error
        assert (office.ran["fan_out"], office.ran["add"], office.ran["end"]) == (1, 1, 2)


async def test_a_step_that_runs_again_finds_its_children(office: Office) -> None:
    three_steps(office, retries=2)
    office.faults["fan_out ends"] = 2
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=3))
        assert (task.status, task.attempts, office.ran["fan_out"]) == ("complete", 3, 3), task.error
        assert [office.ran[f"double {number}"] for number in range(3)] == [1, 1, 1]
        assert len(harness.tasks) == 4


async def test_a_failed_child_fails_the_step_and_a_retry_enqueues_it_anew(office: Office) -> None:
    pipeline = ax.Pipeline(office.pool, retries=1)

    class Fragile(pipeline.Base):
        @pipeline.step(0)
        async def one(self, context: Job) -> Total:
            good = await ax.enqueue("double", Job(number=1))
            bad = await ax.enqueue("fails", Job(number=2))
            values = await ax.gather(good, bad)
            return Total(value=sum(values))

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Fragile", Job())
        assert (task.status, task.attempts) == ("error", 2)
        assert task.error is not None and "Task fails (" in task.error and "ValueError: no 2" in task.error
        assert office.ran == {"double 1": 1, "fails 2": 2}


async def test_a_task_that_is_put_back_by_hand_goes_on_at_its_failed_step(office: Office) -> None:
    three_steps(office)
    office.faults["end"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=2))
        assert task.status == "error"
        with pytest.raises(ax.ActivityNotFoundError):
            await ax.retry(task.agent_id, metadata_filter={"tenant": "other"})
        assert await ax.retry(task.agent_id)
        [again] = await harness.run_all()
        assert again.result == Total(value=4), again.error
        assert (office.ran["fan_out"], office.ran["add"], office.ran["end"]) == (1, 1, 2)
        assert not await ax.retry(task.agent_id)
        assert "Put back on the queue by hand." in again.messages


async def test_children_canceled_with_their_parent_are_enqueued_anew_when_it_is_put_back(
    office: Office,
) -> None:
    @office.pool.task("top")
    async def top(agent_id: UUID, context: Job) -> int:
        return await ax.get_result(await ax.enqueue("double", Job(number=3)))

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("top")
        with Session(RUNTIME.engine) as db:
            db.query(ActivityResult).delete()  # what is canceled has none
            db.query(Activity).update({"status": ax.Status.CANCELED})
            db.commit()
        assert await ax.retry(task.agent_id)
        await harness.run_all()
        assert harness.task(task.agent_id).result == 6
        assert office.ran["double 3"] == 2


async def test_a_mere_crash_sees_the_same_failed_child(office: Office) -> None:
    """RetryLater ends the attempt without a failure, as a crash does."""
    pool = office.pool
    later = [True]

    @pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> str:
        bad = await ax.enqueue("fails", Job(number=2))
        [error] = await ax.gather(bad, return_exceptions=True)
        if later:
            later.pop()
            raise ax.RetryLater(1)
        return type(error).__name__

    async with ax.testing.harness(pool) as harness:
        task = await harness.run("parent", Job())
        assert task.result == "TaskFailedError", task.error
        assert office.ran["fails 2"] == 1


async def test_equal_children_are_several(office: Office) -> None:
    @office.pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> int:
        tasks = [await ax.enqueue("double", Job(number=1)) for _ in range(3)]
        tasks += await ax.enqueue_many("double", [Job(number=1)] * 2)
        office.run("parent")
        return len({task.agent_id for task in tasks})

    office.faults["parent"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.enqueue("parent")
        await harness.run_all()
        assert harness.task(task).status == "error"
        assert office.ran["double 1"] == 5


async def test_children_enqueued_within_a_transaction_and_detached_ones(office: Office) -> None:
    @office.pool.task("parent", retries=1)
    async def parent(agent_id: UUID, context: Job) -> None:
        with Session(RUNTIME.engine) as session:
            ax.enqueue_sync("double", Job(number=1), session=session)
            session.commit()
        await ax.enqueue("double", Job(number=2), detached=True)
        ax.enqueue_sync("double", Job(number=3), idempotency_key="third")
        office.run("parent")

    office.faults["parent"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        await harness.run_all()
        assert task.status == "complete", task.error
        assert office.ran == {"parent": 2, "double 1": 1, "double 2": 1, "double 3": 1}
        with Session(RUNTIME.engine) as db:
            parents = {
                row.context: row.parent_id for row in db.query(Activity).filter_by(agent_type="double")
            }
        assert [parents[f'{{"key":"job","number":{n}}}'] for n in (1, 2, 3)] == [
            task.agent_id,
            None,
            task.agent_id,
        ]


async def test_the_tree_is_in_the_detail(office: Office) -> None:
    @office.pool.task("middle")
    async def middle(agent_id: UUID, context: Job) -> int:
        return await ax.get_result(await ax.enqueue("double", Job(number=1)))

    @office.pool.task("top")
    async def top(agent_id: UUID, context: Job) -> int:
        return sum(await ax.map("middle", [Job(number=n) for n in range(2)]))

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("top")
        assert task.result == 4, task.error
        with Session(RUNTIME.engine) as db:
            found = ax.activity.detail(db, task.agent_id)
            below = ax.activity.detail(db, found.children[0].agent_id)
        assert [child.agent_type for child in found.children] == ["middle", "middle"]
        assert [len(child.children) for child in found.children] == [1, 1]
        assert found.children[0].children[0].latest_log_message == "Task completed successfully."
        assert (found.parent_id, below.parent_id) == (None, task.agent_id)


async def test_canceling_reaches_the_tree_but_for_what_is_detached(office: Office) -> None:
    @office.pool.task("top")
    async def top(agent_id: UUID, context: Job) -> None:
        await ax.enqueue("double", Job(number=1))
        await ax.enqueue("double", Job(number=2), detached=True)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.enqueue("top")
        # The worker runs the parent alone: its children stay queued.
        await harness._work({task.agent_id})
        with Session(RUNTIME.engine) as db:
            db.query(Activity).filter_by(agent_id=task.agent_id).update({"status": "RUNNING"})
            db.commit()
        assert await ax.cancel(task)
        await harness.run_all()
        assert office.ran == {"double 2": 1}
        assert sorted(one.status for one in harness.tasks) == ["canceled", "canceled", "complete"]
        assert "Canceled with the task that enqueued it." in harness.tasks[1].messages


async def test_a_pipeline_run_inside_a_task_is_recorded_there(office: Office) -> None:
    pipeline = three_steps(office)

    @office.pool.task("outer", retries=1)
    async def outer(agent_id: UUID, context: Job) -> int:
        first = await pipeline.run(Job(number=1))
        second = await pipeline.run(Job(number=2))
        office.run("outer")
        return first.value + second.value

    office.faults["outer"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("outer")
        assert task.result == 1 + 4, task.error
        assert office.ran["end"] == 2


async def test_pipelines_run_side_by_side_are_told_apart_by_their_context(office: Office) -> None:
    """Branches that wait for something before come to their pipelines in another order in another attempt."""
    pipeline = three_steps(office)

    @office.pool.task("outer", retries=1)
    async def outer(agent_id: UUID, context: Job) -> dict[int, int]:
        numbers = (2, 3) if office.ran["outer"] else (3, 2)
        squares = {number: (await pipeline.run(Job(number=number))).value for number in numbers}
        office.run("outer")
        return squares

    office.faults["outer"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("outer")
        assert task.result == {2: 4, 3: 9}, task.error
        assert office.ran["end"] == 2


async def test_what_a_step_without_annotations_gives_is_the_next_ones_types(office: Office) -> None:
    pipeline = ax.Pipeline(office.pool)

    class Loose(pipeline.Base):
        @pipeline.step(0, "description")
        async def step_one(self, context):  # type: ignore[no-untyped-def]
            return Job(number=4), Total(value=5)

        @pipeline.step(1)
        async def step_two(self, job, total: Total) -> Total:  # type: ignore[no-untyped-def]
            return Total(value=job["number"] + total.value)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Loose", Job())
        assert task.result == Total(value=9), task.error


async def test_as_completed_gives_tasks_as_they_end(office: Office) -> None:
    @office.pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> list[Any]:
        tasks = [await ax.enqueue("double", Job(number=n)) for n in range(3)]
        tasks.append(await ax.enqueue("fails", Job()))
        seen: list[Any] = []
        async for done in ax.as_completed(tasks):
            try:
                seen.append(done.result())
            except ax.TaskFailedError as error:
                seen.append(error.task_name)
            assert done.task in tasks
        return sorted(seen, key=str)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [0, 2, 4, "fails"], task.error


@pytest.mark.parametrize("most", [None, 1, 7])
async def test_map_keeps_the_order_and_the_bound(office: Office, most: int | None) -> None:
    @office.pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> list[int]:
        return await ax.map("double", (Job(number=n) for n in range(30)), max_in_flight=most)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [2 * n for n in range(30)], task.error


async def test_map_of_nothing_and_with_failures(office: Office) -> None:
    @office.pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> list[str]:
        assert await ax.map("double", []) == []
        errors = await ax.map("fails", [Job(number=1), Job(number=2)], return_exceptions=True)
        with pytest.raises(ax.TaskFailedError, match="fails"):
            await ax.map("fails", [Job(number=3)])
        with pytest.raises(ax.UsageError, match="max_in_flight must be 1 or more, not 0"):
            await ax.map("fails", [Job(number=3)], max_in_flight=0)
        return [type(error).__name__ for error in errors]

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == ["TaskFailedError"] * 2, task.error


# ---- sleeping and waiting ----------------------------------------------------------------------------------


async def test_a_sleep_is_slept_once(office: Office) -> None:
    @office.pool.task("sleeper", retries=1)
    async def sleeper(agent_id: UUID, context: Job) -> str:
        await ax.sleep(hours=6)
        office.run("awake")
        await ax.sleep(days=1)
        return "rested"

    office.faults["awake"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("sleeper")
        assert task.result == "rested", task.error
        assert [line for line in task.messages if line.startswith("Sleeping until ")] != []
        assert sum(line.startswith("Sleeping until ") for line in task.messages) == 2


async def test_a_sleep_until_a_moment_that_has_passed_when_it_was_slept(office: Office) -> None:
    @office.pool.task("sleeper")
    async def sleeper(agent_id: UUID, context: Job) -> str:
        office.run("sleeper")
        await ax.sleep(seconds=7200 if office.ran["sleeper"] == 1 else -1)
        return "rested"

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("sleeper")
        assert (task.result, office.ran["sleeper"]) == ("rested", 2), task.error


async def test_a_sleep_outside_a_task_is_a_plain_one() -> None:
    await asyncio.wait_for(ax.sleep(0.01), 5)
    with pytest.raises(ax.UsageError, match="0 seconds or more"):
        await ax.sleep(-1)


async def test_events_are_waited_for_and_given_in_order(office: Office) -> None:
    @office.pool.task("waiter")
    async def waiter(agent_id: UUID, context: Job) -> list[Any]:
        first = await ax.wait_for_event("paid", context.key, type=Total)
        second = await ax.wait_for_event("paid", context.key)
        return [first.value, second]

    async with ax.testing.harness(office.pool) as harness:
        assert await ax.send_event("paid", "order-1", Total(value=0)) == 0  # before the task: not for it
        task = await harness.run("waiter", Job(key="order-1"))
        assert task.status == "queued"
        assert task.messages[-1] == "Waiting for event: paid(order-1)"
        assert await ax.send_event("paid", "order-2", Total(value=9)) == 0
        assert await ax.send_event("paid", "order-1", Total(value=1)) == 1
        [task] = await harness.run_all()
        assert task.status == "queued"
        # Sent while nobody looks: kept until the task comes to it.
        assert await ax.send_event("paid", "order-1", {"value": 2}) == 1
        [task] = await harness.run_all()
        assert task.result == [1, {"value": 2}], task.error


async def test_waits_side_by_side_are_told_apart_by_their_key(office: Office) -> None:
    @office.pool.task("waiter")
    async def waiter(agent_id: UUID, context: Job) -> dict[str, Any]:
        office.run("waiter")
        keys = ["a", "b"] if office.ran["waiter"] == 1 else ["b", "a"]
        values = await asyncio.gather(*(ax.wait_for_event("paid", key) for key in keys))
        return dict(zip(keys, values, strict=True))

    async with ax.testing.harness(office.pool) as harness:
        await harness.run("waiter")
        assert await ax.send_event("paid", "a", 1) == 1
        [task] = await harness.run_all()
        assert task.status == "queued"
        assert await ax.send_event("paid", "b", 2) == 1
        [task] = await harness.run_all()
        assert task.result == {"a": 1, "b": 2}, task.error


async def test_an_event_that_does_not_come_in_time(office: Office) -> None:
    @office.pool.task("waiter")
    async def waiter(agent_id: UUID, context: Job) -> str:
        try:
            await ax.wait_for_event("never", timeout=0)
        except TimeoutError as error:
            return str(error)
        return "came"

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("waiter")
        assert task.result == "Event never did not come within 0 seconds.", task.error


async def test_events_that_cannot_be(office: Office) -> None:
    with pytest.raises(ax.UsageError, match="inside a task"):
        await ax.wait_for_event("x")
    for name, key in (("", ""), ("x" * 300, ""), ("x", "y" * 300), ("x", "\x00"), ("x ", "")):
        with pytest.raises(ax.UsageError, match="An event's"):
            await ax.send_event(name, key)
    with pytest.raises(ax.UsageError, match="cannot be written as JSON"):
        await ax.send_event("x", value=object())


async def test_branches_wait_beside_each_other(office: Office) -> None:
    @office.pool.task("branches")
    async def branches(agent_id: UUID, context: Job) -> list[Any]:
        async def slow() -> str:
            await ax.sleep(hours=1)
            return "slept"

        child = await ax.enqueue("double", Job(number=5))
        return list(await asyncio.gather(ax.get_result(child), slow(), ax.wait_for_event("go")))

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.enqueue("branches")
        await harness.run_all()
        assert harness.task(task).status == "queued"
        await ax.send_event("go", value="!")
        await harness.run_all()
        done = harness.task(task)
        assert done.result == [10, "slept", "!"], done.error
        assert office.ran["double 5"] == 1


# ---- trackers ----------------------------------------------------------------------------------------------


async def test_a_task_that_runs_twice_counts_once(office: Office) -> None:
    @office.pool.task("counts", retries=2)
    async def counts(agent_id: UUID, context: Job) -> list[int]:
        tracker = ax.Tracker("batch", 1)
        seen = [tracker.incr(), tracker.incr(), tracker.decr()]
        office.run("counts")
        return [*seen, tracker.count]

    office.faults["counts"] = 2
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("counts")
        assert task.result == [1, 2, 1, 1], task.error
        assert ax.Tracker("batch", 1).count == 1


async def test_on_complete_fires_once(office: Office) -> None:
    @office.pool.task("part", retries=1)
    async def part(agent_id: UUID, context: Job) -> None:
        ax.Tracker("parts").decr()
        office.run(f"part {context.number}")

    office.faults["part 3"] = 1
    async with ax.testing.harness(office.pool) as harness:
        tracker = ax.Tracker("parts")
        tracker.incr(4)
        assert not tracker.on_complete("double", Job(number=21))
        assert not tracker.on_complete("double", Job(number=22))  # only the first has an effect
        for number in range(4):
            await ax.enqueue("part", Job(number=number))
        await harness.run_all()
        assert office.ran["double 21"] == 1 and office.ran["double 22"] == 0
        tracker.incr()
        tracker.decr()
        await harness.run_all()
        assert office.ran["double 21"] == 1


async def test_on_complete_after_all_is_done_and_before_anything_was_counted(office: Office) -> None:
    async with ax.testing.harness(office.pool) as harness:
        tracker = ax.Tracker("done")
        tracker.incr()
        tracker.decr()
        assert tracker.on_complete("double", Job(number=1))
        assert not ax.Tracker("empty").on_complete("double", Job(number=2))
        await harness.run_all()
        assert office.ran == {"double 1": 1}


class Steps(ax.BaseAgentRunner[None]):
    async def run(self, *_arguments: object) -> None:
        raise NotImplementedError


def test_what_was_recorded_and_not_asked_for_again_is_told_and_progress_stays(office: Office) -> None:
    @office.pool.task("renamed", retries=1)
    async def renamed(agent_id: UUID, context: Job) -> int:
        office.run("renamed")
        value = await Steps(agent_id).step(f"ask {office.ran['renamed']}", lambda: 1)
        if office.ran["renamed"] == 1:
            ax.activity.update(agent_id, "Half of it.", percentage=50)
            raise ConnectionError("gone")
        return value

    with ax.testing.harness(office.pool) as harness:
        task = harness.run("renamed")
        assert task.result == 1
        told = {line.message: line.percentage for line in task.log}
    assert [line for line in told.items() if line[0].startswith(("Half", "Task started"))] == [
        ("Task started.", 50),  # the second start: it has not lost what was reported before it
        ("Half of it.", 50),
    ]
    [words] = [message for message in told if "did not ask for" in message]
    assert words.startswith("An earlier attempt has recorded step:ask 1#1, which this one did not ask for")

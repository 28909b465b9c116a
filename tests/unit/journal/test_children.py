"""Tasks that tasks enqueue: found again by another attempt, and canceled with their parent."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityResult
from agentexec.journal.children import Place, choose_at, choose_id
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from tests.office import Job, Office, Total

FIRST, SECOND = uuid4(), uuid4()


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


async def test_a_child_is_found_again_whatever_order_its_context_has(office: Office) -> None:
    """A mapping that is built from a set has another order in another process."""
    orders = [["a", "b"], ["b", "a"]]

    @office.pool.task("parent", retries=1)
    async def parent(agent_id: UUID, context: Job) -> str:
        task = await ax.enqueue("elsewhere", {"tags": dict.fromkeys(orders.pop(), True)}, queue_name="other")
        office.run("parent")
        return str(task.agent_id)

    office.faults["parent"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent", Job())
        with Session(RUNTIME.engine) as db:
            children = [str(row.agent_id) for row in db.query(Activity).filter_by(agent_type="elsewhere")]
        assert children == [task.result], task.error


def test_a_child_that_an_earlier_release_enqueued_is_found_again() -> None:
    former = Place([FIRST], former_ids=[SECOND])
    assert choose_at(former, {}) == FIRST
    assert choose_at(former, {SECOND: Status.RUNNING}) == SECOND
    assert choose_at(former, {FIRST: Status.RUNNING}) == FIRST


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
        assert sorted(task.status for task in harness.tasks) == ["canceled", "canceled", "complete"]
        assert "Canceled with the task that enqueued it." in harness.tasks[1].messages


@pytest.mark.parametrize("status", [None, Status.QUEUED, Status.RUNNING, Status.COMPLETE], ids=str)
def test_a_child_that_has_not_failed_is_kept(status: Status | None) -> None:
    known = {} if status is None else {FIRST: status}
    assert choose_id([FIRST], known) == FIRST
    assert choose_id([FIRST, SECOND], known) == FIRST


@pytest.mark.parametrize("status", [Status.ERROR, Status.CANCELED], ids=str)
def test_a_child_that_failed_is_replaced_after_its_parent_raised(status: Status) -> None:
    assert choose_id([FIRST, SECOND], {FIRST: status}) == SECOND


def test_a_crash_of_the_parent_changes_no_child() -> None:
    assert choose_id([FIRST], {FIRST: Status.ERROR}) == FIRST
    assert choose_id([FIRST, SECOND], {FIRST: Status.ERROR, SECOND: Status.ERROR}) == SECOND

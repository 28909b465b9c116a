"""The order in which a queue in memory gives out its tasks."""

from __future__ import annotations

import threading
from uuid import UUID

from agentexec.state.memory_backend.queue import Queue, QueuedTask
from agentexec.task import Priority, new_agent_id


def add(queue: Queue, priority: Priority, *, run_at: float | None = None) -> UUID:
    agent_id = new_agent_id()
    queue.tasks[agent_id] = QueuedTask(0, priority)
    if run_at is None:
        queue.make_ready(agent_id)
    else:
        queue.delayed[agent_id] = run_at
    return agent_id


def test_high_comes_before_low_and_the_oldest_first() -> None:
    queue = Queue(threading.RLock())
    low, first, second = (add(queue, priority) for priority in (Priority.LOW, Priority.HIGH, Priority.HIGH))
    assert list(queue.take(limit=3, low_quota=0)) == [first, second, low]
    assert list(queue.take(limit=3, low_quota=0)) == []


def test_the_quota_takes_from_low_first() -> None:
    queue = Queue(threading.RLock())
    high, low, other_low = (add(queue, priority) for priority in (Priority.HIGH, Priority.LOW, Priority.LOW))
    assert list(queue.take(limit=2, low_quota=1)) == [low, high]
    assert len(queue.ready[Priority.LOW]) == 1 and other_low in queue.ready[Priority.LOW]


def test_a_quota_above_the_limit_takes_no_more_than_the_limit() -> None:
    queue = Queue(threading.RLock())
    tasks = [add(queue, Priority.LOW) for _ in range(3)]
    assert list(queue.take(limit=2, low_quota=5)) == tasks[:2]


def test_due_tasks_become_ready_in_the_order_in_which_they_were_due() -> None:
    queue = Queue(threading.RLock())
    later = add(queue, Priority.LOW, run_at=20.0)
    sooner = add(queue, Priority.LOW, run_at=10.0)
    future = add(queue, Priority.LOW, run_at=30.0)
    queue.promote(20.0)
    assert [queue.ready[Priority.LOW].pop() for _ in range(2)] == [sooner, later]
    assert list(queue.delayed) == [future]
    assert queue.next_due(20.0) == 10.0
    assert queue.next_due(40.0) == 0.0


def test_a_queue_without_delayed_tasks_has_no_next_due_time() -> None:
    assert Queue(threading.RLock()).next_due(0.0) is None


def test_a_withdrawn_task_is_nowhere() -> None:
    queue = Queue(threading.RLock())
    ready, delayed = add(queue, Priority.HIGH), add(queue, Priority.LOW, run_at=1.0)
    leased = new_agent_id()
    queue.leases[leased] = 5.0
    for agent_id in (ready, delayed, leased):
        queue.withdraw(agent_id)
    assert not any(queue.ready.values())
    assert not queue.delayed
    assert not queue.leases

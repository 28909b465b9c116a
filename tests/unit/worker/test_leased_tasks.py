"""A task keeps its lease until its ending is written, and its slot until its handler has ended."""

from __future__ import annotations

from tests.unit.worker.parts import Held, admitted


def test_a_task_whose_handler_has_ended_keeps_its_lease_until_it_is_settled() -> None:
    held = Held(slots=1)
    task = admitted(crashes=2)
    held.start([task])
    assert held.free_slots == 0
    held.tasks.free_slot(task.lease.agent_id)
    assert held.free_slots == 1
    assert held.tasks.all() == [task.lease]
    assert held.suspects.any_running, "its process may still die before the ending is written"
    held.tasks.settle([task.lease.agent_id])
    assert held.tasks.all() == []
    assert held.tasks.epoch(task.lease.agent_id) is None
    assert not held.suspects.any_running


def test_a_forgotten_task_holds_nothing() -> None:
    held = Held(slots=1)
    task = admitted(crashes=2)
    held.start([task])
    assert held.tasks.epoch(task.lease.agent_id) == task.lease.epoch
    held.tasks.forget(task.lease.agent_id)
    assert (held.tasks.all(), held.free_slots, held.suspects.any_running) == ([], 1, False)


def test_leases_are_told_apart_by_the_queues_they_were_claimed_from() -> None:
    held = Held(queue="high")
    first, second, third = (admitted().lease for _ in range(3))
    held.tasks.add([first])
    held.tasks.add([second], queue="high")
    assert held.tasks.by_queue([]) == []
    assert held.tasks.by_queue([first, second]) == [("high", [first, second])]
    held.tasks.add([third], queue="default")
    assert held.tasks.by_queue([first, third, second]) == [("high", [first, second]), ("default", [third])]
    held.tasks.forget(third.agent_id)
    assert held.tasks.queue_of(third.agent_id) == "high", "nothing is kept of a task that is not held"

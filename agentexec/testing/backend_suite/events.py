"""Tests of short-lived events and of their followers."""

from __future__ import annotations

from agentexec.state.backend import EVENTS_KEPT, StateBackend
from agentexec.task import new_agent_id
from agentexec.testing.backend_suite.operations import WAIT_TIMEOUT, running_in_thread


class EventTests:
    """Tests of publish, read_events, follow and followed_tasks."""

    def test_events_come_in_order_and_count_up(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        texts = [f"event {number} \N{SNOWMAN}" for number in range(7)]
        backend.publish(queue, {agent_id: texts[:3]})
        backend.publish(queue, {agent_id: texts[3:]})
        events = backend.read_events(queue, {agent_id: 0})[agent_id]
        assert [event.text for event in events] == texts
        first = events[0].number
        assert first > 0
        assert [event.number for event in events] == list(range(first, first + 7))

    def test_reading_continues_after_a_number(self, backend: StateBackend, queue: str) -> None:
        agent_id, other = new_agent_id(), new_agent_id()
        backend.publish(queue, {agent_id: ["a", "b", "c"], other: ["x"]})
        found = backend.read_events(queue, {agent_id: 0, other: 0})
        assert [event.text for event in found[other]] == ["x"]
        second = found[agent_id][1]
        assert backend.read_events(queue, {agent_id: second.number}) == {agent_id: found[agent_id][2:]}
        assert backend.read_events(queue, {agent_id: found[agent_id][-1].number}) == {}

    def test_a_task_without_events_has_none(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        assert backend.read_events(queue, {agent_id: 0}) == {}
        assert backend.read_events(queue, {}) == {}
        backend.publish(queue, {})
        backend.publish(queue, {agent_id: []})
        assert backend.read_events(queue, {agent_id: 0}) == {}

    def test_the_last_events_are_kept_and_their_number_is_bounded(
        self, backend: StateBackend, queue: str
    ) -> None:
        agent_id = new_agent_id()
        for start in range(0, 3 * EVENTS_KEPT, 250):
            backend.publish(queue, {agent_id: [str(start + place) for place in range(250)]})
        events = backend.read_events(queue, {agent_id: 0})[agent_id]
        assert EVENTS_KEPT <= len(events) < 1.5 * EVENTS_KEPT
        assert events[-1].text == str(3 * EVENTS_KEPT - 1)
        assert events[-1].number - events[0].number == len(events) - 1

    def test_a_big_batch_is_taken(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.publish(queue, {agent_id: [str(number) for number in range(2500)]})
        assert backend.read_events(queue, {agent_id: 0})[agent_id][-1].text == "2499"

    def test_followers_are_notified(self, backend: StateBackend, queue: str, name: str) -> None:
        agent_id, other = new_agent_id(), new_agent_id()
        backend.follow(queue, [agent_id], f"{name}-a")
        backend.follow(queue, [agent_id], f"{name}-a")
        backend.follow(queue, [agent_id, other], f"{name}-b")
        backend.publish(queue, {agent_id: ["one", "two"]})
        assert backend.receive(f"{name}-a", WAIT_TIMEOUT) == [f"events {agent_id}"]
        assert backend.receive(f"{name}-b", WAIT_TIMEOUT) == [f"events {agent_id}"]
        backend.publish(queue, {agent_id: ["three"], other: ["x"]})
        assert backend.receive(f"{name}-a", WAIT_TIMEOUT) == [f"events {agent_id}"]
        assert sorted(backend.receive(f"{name}-b", WAIT_TIMEOUT)) == sorted(
            f"events {followed}" for followed in (agent_id, other)
        )

    def test_an_event_wakes_a_follower(self, backend: StateBackend, queue: str, name: str) -> None:
        agent_id = new_agent_id()
        backend.follow(queue, [agent_id], name)
        with running_in_thread(lambda: backend.receive(name, WAIT_TIMEOUT)) as ended:
            backend.publish(queue, {agent_id: ["hello"]})
            assert ended() < 0.5

    def test_followed_tasks_are_known(self, backend: StateBackend, queue: str, name: str) -> None:
        followed, other = new_agent_id(), new_agent_id()
        assert backend.followed_tasks(queue, [followed, other]) == set()
        backend.follow(queue, [followed], name)
        assert backend.followed_tasks(queue, [followed, other]) == {followed}
        assert backend.followed_tasks(queue, []) == set()

    def test_following_is_not_watching(self, backend: StateBackend, queue: str, name: str) -> None:
        followed, watched = new_agent_id(), new_agent_id()
        backend.follow(queue, [followed], f"{name}-follower")
        backend.watch(queue, [followed, watched], f"{name}-watcher")
        backend.publish(queue, {followed: ["a"]})
        assert backend.receive(f"{name}-watcher", 0.05) == []
        backend.notify_done(queue, [followed])
        assert backend.receive(f"{name}-watcher", WAIT_TIMEOUT) == [f"done {followed}"]
        assert backend.receive(f"{name}-follower", WAIT_TIMEOUT) == [f"events {followed}"]

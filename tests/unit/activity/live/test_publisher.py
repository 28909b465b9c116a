"""Publisher of live events: it joins, bounds and drops events, and blocks nobody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from agentexec.activity.live import publisher as module
from agentexec.activity.live.publisher import EventPublisher
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime
from agentexec.state.backend import EVENTS_KEPT
from agentexec.state.memory_backend import MemoryBackend
from agentexec.task import CURRENT_LEASE, Lease
from tests.waiting import patient, wait_until


class CountingBackend(MemoryBackend):
    """Backend that records calls; each call runs `trouble`, which may raise or block."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.trouble: Callable[[], None] = lambda: None

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        self.calls.append("publish")
        self.trouble()
        super().publish(queue, events)

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        self.calls.append("followed")
        self.trouble()
        return super().followed_tasks(queue, agent_ids)


class Stage:
    """Publisher with a backend of its own."""

    def __init__(self) -> None:
        runtime = Runtime()
        self.backend = runtime._backend = CountingBackend()
        self.live = EventPublisher(runtime)
        self.queue = module.CONF.queue_name

    def follow(self, agent_id: UUID) -> None:
        self.backend.follow(self.queue, [agent_id], "reader")

    def sent(self, agent_id: UUID) -> list[dict[str, Any]]:
        events = self.backend.read_events(self.queue, {agent_id: 0}).get(agent_id, [])
        return [json.loads(event.text) for event in events]

    def text(self, agent_id: UUID) -> str:
        return "".join(event["data"]["text"] for event in self.sent(agent_id))


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.live.close()


def delta(text: str, **rest: Any) -> dict[str, Any]:
    return {"text": text, **rest}


def test_deltas_are_joined_and_flushed(stage: Stage) -> None:
    agent_id = uuid4()
    stage.follow(agent_id)
    for number in range(500):
        stage.live.publish(agent_id, "text_delta", delta(f"{number} "))
    assert stage.live.flush([agent_id], 5.0)
    assert stage.text(agent_id) == "".join(f"{number} " for number in range(500))
    assert len(stage.sent(agent_id)) < 10


def test_deltas_of_two_answers_are_not_joined(stage: Stage) -> None:
    agent_id = uuid4()
    for agent in "AABA":
        stage.live.publish(agent_id, "text_delta", delta("x", agent=agent))
    stage.follow(agent_id)
    wait_until(lambda: stage.sent(agent_id))
    texts = [event["data"] for event in stage.sent(agent_id)]
    assert texts == [delta("xx", agent="A"), delta("x", agent="B"), delta("x", agent="A")]


def test_no_events_are_sent_for_a_task_without_followers(stage: Stage) -> None:
    agent_id = uuid4()
    stage.live.publish(agent_id, "tool_called", {"call_id": "1"})
    assert stage.live.flush([agent_id], 5.0)
    assert stage.sent(agent_id) == []
    assert "publish" not in stage.backend.calls
    assert stage.live._pending == {}


def test_an_ending_asks_again_who_follows_the_task(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_id, asked, going_on = uuid4(), threading.Event(), threading.Event()
    ask = stage.backend.followed_tasks

    def slowly(queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        answer = ask(queue, agent_ids)
        asked.set()
        going_on.wait(10)
        return answer

    monkeypatch.setattr(stage.backend, "followed_tasks", slowly)
    stage.live.publish(agent_id, "text_delta", delta("all of it"))
    assert asked.wait(10)
    stage.follow(agent_id)
    ending = threading.Thread(target=stage.live.flush, args=([agent_id], 10.0))
    ending.start()
    wait_until(lambda: agent_id in stage.live._flushing)
    going_on.set()
    ending.join()
    assert stage.text(agent_id) == "all of it"


def test_a_late_follower_gets_the_events_published_before(stage: Stage) -> None:
    agent_id = uuid4()
    stage.live.publish(agent_id, "text_delta", delta("early "))
    wait_until(lambda: "followed" in stage.backend.calls)
    stage.follow(agent_id)
    wait_until(lambda: stage.text(agent_id) == "early ")
    stage.live.publish(agent_id, "text_delta", delta("late"))
    wait_until(lambda: stage.text(agent_id) == "early late")


def test_the_end_of_a_task_without_events_sends_nothing(stage: Stage) -> None:
    agent_id = uuid4()
    assert stage.live.flush([agent_id])
    stage.live.notify_log_changed([agent_id])
    stage.live.flush([agent_id])
    assert "publish" not in stage.backend.calls


def test_a_check_goes_through_no_events_that_it_keeps(stage: Stage) -> None:
    agent_id = uuid4()
    stage.live.notify_log_changed([agent_id])
    for place in range(100):
        stage.live.publish(agent_id, "usage", {"place": place})
    wait_until(lambda: len(stage.live._pending[agent_id].events) == 100)  # without the log line
    kept, checks = stage.live._pending[agent_id].events, len(stage.backend.calls)
    wait_until(lambda: len(stage.backend.calls) > checks + 1)
    assert stage.live._pending[agent_id].events is kept
    assert len(kept) == 100


def test_followers_are_told_of_a_new_log_line(stage: Stage) -> None:
    agent_id, other = uuid4(), uuid4()
    stage.follow(agent_id)
    stage.live.notify_log_changed([agent_id, other])
    wait_until(lambda: [event["type"] for event in stage.sent(agent_id)] == ["log"])
    wait_until(lambda: not stage.live._pending)
    assert stage.sent(other) == []


def test_events_beyond_the_limit_are_evicted_oldest_first(stage: Stage) -> None:
    agent_id = uuid4()
    number = EVENTS_KEPT + 77
    for place in range(number):
        stage.live.publish(agent_id, "usage", {"place": place})
    stage.follow(agent_id)
    assert stage.live.flush([agent_id], 5.0)
    events = stage.sent(agent_id)
    assert events[-1]["data"] == {"place": number - 1}
    # The backend keeps as many events as the publisher, so it has evicted the event about the dropped ones.
    assert [event["data"]["place"] for event in events[-900:]] == list(range(number - 900, number))


def test_pending_events_are_bounded_by_their_size(stage: Stage) -> None:
    agent_id = uuid4()
    for _ in range(3 * module.TASK_CHARS // 1000):
        stage.live.publish(agent_id, "text_delta", delta("x" * 1000))
    assert stage.live._pending[agent_id].chars <= module.TASK_CHARS
    assert stage.live._pending[agent_id].dropped > 0
    stage.follow(agent_id)
    assert stage.live.flush([agent_id], 5.0)
    assert stage.sent(agent_id)[0]["type"] == "dropped"
    assert stage.sent(agent_id)[0]["data"]["events"] > 0
    assert stage.live._chars == 0


def test_a_closed_publisher_uses_the_backend_no_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would open again what was closed after it."""
    asked, may_answer = threading.Event(), threading.Event()

    def trouble() -> None:
        asked.set()
        may_answer.wait()

    stage.backend.trouble = trouble
    stage.live.notify_log_changed([uuid4()])
    asked.wait()
    flush = stage.live.flush
    monkeypatch.setattr(stage.live, "flush", lambda ids: (flush(ids), may_answer.set()))
    stage.live.close()
    assert stage.live._thread is not None and not stage.live._thread.is_alive()


def test_publishing_does_not_wait_for_a_backend_that_hangs(stage: Stage) -> None:
    agent_id, going_on = uuid4(), threading.Event()
    stage.follow(agent_id)
    stage.backend.trouble = lambda: cast(None, going_on.wait(60))
    started = time.monotonic()
    for number in range(5000):
        stage.live.publish(agent_id, "text_delta", delta(f"{number} "))
    assert time.monotonic() - started < patient(10.0)
    started = time.monotonic()
    assert not stage.live.flush([agent_id])
    assert time.monotonic() - started < patient(10.0), "an ending waits for two seconds"
    going_on.set()


def test_an_outage_is_logged_once_and_delays_no_ending(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> None:
        raise UnavailableError("Redis is away.")

    agent_id, other = uuid4(), uuid4()
    stage.follow(agent_id)
    stage.live.publish(agent_id, "text_delta", delta("lost "))
    wait_until(lambda: stage.text(agent_id) == "lost ")
    caplog.set_level("INFO")
    stage.backend.trouble = away
    stage.live.publish(agent_id, "text_delta", delta("never "))
    wait_until(lambda: stage.live._outage.failures > 1)
    stage.live.publish(other, "usage", {})
    started = time.monotonic()
    assert not stage.live.flush([other], 60.0)
    assert time.monotonic() - started < 30, "an ending does not wait while the backend is away"
    stage.backend.trouble = lambda: None
    stage.live.publish(agent_id, "text_delta", delta("again"))
    wait_until(lambda: [event["type"] for event in stage.sent(agent_id)][-2:] == ["dropped", "text_delta"])
    assert stage.sent(agent_id)[-2]["data"] == {"events": 1}
    assert len([record for record in caplog.records if "away" in record.message]) == 1
    assert "sent again" in caplog.text


def test_an_event_carries_the_epoch_of_its_attempt(stage: Stage) -> None:
    agent_id, other = uuid4(), uuid4()
    stage.follow(agent_id)
    stage.follow(other)
    token = CURRENT_LEASE.set(Lease(agent_id, 7))
    stage.live.publish(agent_id, "usage", {})
    stage.live.publish(other, "usage", {})
    CURRENT_LEASE.reset(token)
    assert stage.live.flush([agent_id, other], 5.0)
    assert stage.sent(agent_id)[0]["epoch"] == 7
    assert stage.sent(other)[0]["epoch"] is None


def test_any_data_becomes_json_of_bounded_size(stage: Stage) -> None:
    agent_id = uuid4()
    stage.follow(agent_id)
    circle: list[Any] = []
    circle.append(circle)
    for data in (
        {"output": "x" * 1_000_000, "call_id": "1"},
        {"output": ["y" * 1000] * 1000},
        {"output": float("nan"), "plain": [1, None]},
        {"output": circle},
        {"output": object(), "text": "lone \udc80"},
        {str(number): "z" * 5000 for number in range(30)},
    ):
        stage.live.publish(agent_id, "tool_output", data)
    assert stage.live.flush([agent_id], 5.0)
    events = stage.sent(agent_id)
    assert len(events) == 6
    assert all(len(json.dumps(event)) < 100_000 for event in events)
    assert events[0]["data"]["call_id"] == "1"
    assert events[0]["data"]["truncated"] is True
    assert events[2]["data"] == {"output": "nan", "plain": [1, None]}


def test_events_are_published_in_the_queue_of_their_task(stage: Stage) -> None:
    here, there = uuid4(), uuid4()
    stage.live.queue_of = lambda agent_id: "other" if agent_id == there else stage.queue
    stage.follow(here)
    stage.backend.follow("other", [there], "reader")
    for agent_id in (here, there):
        stage.live.publish(agent_id, "text_delta", delta("text"))
    assert stage.live.flush([here, there], 5.0)
    assert stage.text(here) == "text"
    events = stage.backend.read_events("other", {there: 0, here: 0})
    assert list(events) == [there]

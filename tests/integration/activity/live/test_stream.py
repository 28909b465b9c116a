"""Live stream of tasks that a real worker runs, read in this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

import agentexec as ax
from agentexec.activity.live.follow import Follower
from agentexec.activity.live.publisher import event_publisher
from agentexec.activity.schemas import ActivityEvent
from agentexec.runtime import RUNTIME
from agentexec.state.backend import EVENTS_KEPT
from tests.deployment import Deployment
from tests.waiting import patient, wait_until_async

PROMPT = 2.5
"""Seconds within which a pushed event arrives: fewer than the five between two checks of the record."""


async def collect(
    events: AsyncIterable[ActivityEvent], until: Callable[[ActivityEvent], bool] = lambda _: False
) -> list[ActivityEvent]:
    """Return the events up to the first one for which `until` is true, or to the end."""
    found: list[ActivityEvent] = []
    async with asyncio.timeout(patient(30)):
        async for event in events:
            found.append(event)
            if until(event):
                break
    return found


def kinds(events: list[ActivityEvent]) -> list[str]:
    return [event.type for event in events]


def text_of(events: list[ActivityEvent]) -> str:
    return "".join(event.data["text"] for event in events if event.type == "text_delta")


def lines_of(events: list[ActivityEvent]) -> list[str]:
    return [event.data["message"] for event in events if "message" in event.data]


async def test_a_stream_has_every_event_and_ends_with_the_result(running: Deployment) -> None:
    task = await ax.enqueue("speaks", {"key": "a", "value": "one two three", "seconds": 0.1})
    events = await collect(ax.activity.stream(task.agent_id))
    assert lines_of(events) == [
        "Waiting to start.",
        "Task started.",
        "Half way",
        "Task completed successfully.",
    ]
    assert [event.data["status"] for event in events if event.type == "status"] == ["queued", "running"]
    assert text_of(events) == "one two three The end."
    durable = ("tool_called", "tool_output", "log", "result")
    assert [kind for kind in kinds(events) if kind in durable][:1] == ["tool_called"]
    assert sorted(kind for kind in kinds(events) if kind in durable) == sorted(durable)
    assert events[-1].final
    assert events[-1].data["value"] == "spoken"
    assert events[-1].data["percentage"] == 100
    assert kinds(events).count("dropped") == 0
    assert len({event.id for event in events}) == len(events)
    assert next(event for event in events if event.type == "log").data["percentage"] == 50


async def test_events_arrive_as_they_happen(running: Deployment) -> None:
    task = await ax.enqueue("speaks", {"key": "b", "value": "word " * 8, "seconds": 0.3})
    stream = ax.activity.stream(task.agent_id)
    late: list[float] = []
    async with asyncio.timeout(patient(30)):
        async for event in stream:
            late.append(time.time() - event.at.timestamp())
    assert len(late) > 10
    assert max(late[2:]) < PROMPT
    assert sorted(late)[len(late) // 2] < 1.0


async def test_the_final_event_is_pushed(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "c", "seconds": 1.0})
    *_, last = await collect(ax.activity.stream(task.agent_id))
    assert last.type == "result"
    assert time.time() - last.at.timestamp() < PROMPT


async def test_resuming_repeats_nothing_and_misses_nothing(running: Deployment) -> None:
    """The stream is cut after every single event and resumed."""
    task = await ax.enqueue("speaks", {"key": "d", "value": "one two three four", "seconds": 0.2})
    seen: list[ActivityEvent] = []
    while not (seen and seen[-1].final):
        after = seen[-1].id if seen else None
        part = await collect(ax.activity.stream(task.agent_id, after=after), until=lambda _: True)
        assert len(part) == 1
        seen += part
    assert lines_of(seen) == lines_of(await collect(ax.activity.stream(task.agent_id)))
    assert text_of(seen) == "one two three four The end."
    assert "dropped" not in kinds(seen)
    assert await collect(ax.activity.stream(task.agent_id, after=seen[-1].id)) == []


async def test_an_ended_task_streams_from_the_record_alone(running: Deployment) -> None:
    task = await ax.enqueue("report", {"key": "e", "times": 3})
    await ax.get_result(task, timeout=patient(10))
    events = await collect(ax.activity.stream(task.agent_id))
    assert kinds(events) == ["status", "status", "log", "log", "log", "result"]
    assert events[-1].data["value"] is None
    assert events[-1].data["expired"] is False


async def test_a_failure_ends_the_stream_without_its_traceback(running: Deployment) -> None:
    task = await ax.enqueue("fail", {"key": "f"})
    *_, last = await collect(ax.activity.stream(task.agent_id))
    assert last.type == "error"
    assert last.data["error"] == "ValueError: no luck with f"
    assert "Traceback" not in str(last.data)


async def test_a_cancel_ends_the_stream(running: Deployment) -> None:
    task = await ax.enqueue("waits_for_cancel", {"key": "g"})
    stream = ax.activity.stream(task.agent_id)
    reading = asyncio.create_task(collect(stream))
    running.wait_for_start("g")
    await ax.cancel(task)
    *_, last = await reading
    assert last.type == "canceled"
    assert time.time() - last.at.timestamp() < PROMPT


async def test_each_attempt_is_a_status_event(running: Deployment) -> None:
    task = await ax.enqueue("flaky", {"key": "h", "times": 1})
    events = await collect(ax.activity.stream(task.agent_id))
    statuses = [event.data["status"] for event in events if "status" in event.data]
    assert statuses == ["queued", "running", "queued", "running", "complete"]


async def test_deltas_can_be_turned_off(running: Deployment) -> None:
    task = await ax.enqueue("speaks", {"key": "i", "value": "one two", "seconds": 0.1})
    events = await collect(ax.activity.stream(str(task.agent_id), deltas=False))
    assert "text_delta" not in kinds(events)
    assert "tool_called" in kinds(events)


async def test_a_stream_works_without_an_event_loop(running: Deployment) -> None:
    task = await ax.enqueue("speaks", {"key": "j", "value": "one two", "seconds": 0.1})
    events = await asyncio.to_thread(lambda: list(ax.activity.stream(task.agent_id)))
    assert text_of(events) == "one two The end."
    assert events[-1].data["value"] == "spoken"


async def test_many_readers_share_one_thread(running: Deployment) -> None:
    task = await ax.enqueue("speaks", {"key": "k", "value": "one two three", "seconds": 0.3})
    others = {*threading.enumerate()}  # some of them of earlier tests, about to end
    found = await asyncio.gather(*(collect(ax.activity.stream(task.agent_id)) for _ in range(100)))
    threads = {*threading.enumerate()} - others
    assert {text_of(events) for events in found} == {"one two three The end."}
    assert {len(lines_of(events)) for events in found} == {4}
    assert [thread.name for thread in threads].count("agentexec-follow") <= 1
    assert len(threads) < 50, "what reads for them takes turns in a few threads"


async def test_a_slow_reader_gets_a_dropped_event_and_goes_on(running: Deployment) -> None:
    agent_id = ax.activity.create("by hand")
    stream = aiter(ax.activity.stream(agent_id))
    assert (await anext(stream)).type == "status"
    sender = event_publisher()
    number = EVENTS_KEPT + 500
    started = time.monotonic()
    for start in range(0, number, 100):
        for place in range(start, start + 100):
            sender.publish(agent_id, "tool_called", {"call_id": str(place)})
        await wait_until_async(lambda: not sender._pending and not sender._sending)
    assert time.monotonic() - started < patient(20), "the publisher does not wait for a reader"
    await wait_until_async(lambda: _waiting_events(agent_id) >= EVENTS_KEPT)
    await asyncio.to_thread(ax.activity.complete, agent_id)
    events = await collect(stream)
    assert events[0].type == "dropped"
    assert kinds(events).count("dropped") == 1
    calls = [event.data["call_id"] for event in events if event.type == "tool_called"]
    assert calls == [str(place) for place in range(number - len(calls), number)]
    assert len(calls) >= EVENTS_KEPT
    assert events[-1].type == "result"


def _waiting_events(agent_id: UUID) -> int:
    follower = RUNTIME.get_shared(Follower, lambda: Follower(RUNTIME))
    [subscriber] = follower._tasks[agent_id].subscribers
    return len(subscriber._events)


async def test_a_reader_who_was_away_for_long_gets_one_dropped_event(running: Deployment) -> None:
    agent_id = ax.activity.create("by hand")
    backend, queue = RUNTIME.backend, ax.CONF.queue_name
    text = f'{{"type":"usage","at":{time.time()},"epoch":null,"data":{{}}}}'
    await asyncio.to_thread(backend.publish, queue, {agent_id: [text]})
    first = await collect(ax.activity.stream(agent_id), until=lambda event: event.type == "usage")
    for _ in range(8):
        await asyncio.to_thread(backend.publish, queue, {agent_id: [text] * (EVENTS_KEPT // 4)})
    await asyncio.to_thread(ax.activity.complete, agent_id)
    events = await collect(ax.activity.stream(agent_id, after=first[-1].id))
    assert kinds(events)[0] == "dropped"
    assert set(kinds(events)[1:-1]) == {"usage"}
    assert kinds(events)[-1] == "result"


async def test_events_of_a_superseded_worker_are_left_out(running: Deployment) -> None:
    agent_id = ax.activity.create("by hand")
    texts = [
        f'{{"type":"text_delta","at":1.0,"epoch":{epoch},"data":{{"text":"{word}"}}}}'
        for epoch, word in ((1, "old "), (2, "new "), (1, "zombie "), (2, "text"))
    ]
    RUNTIME.backend.publish(ax.CONF.queue_name, {agent_id: texts})
    ax.activity.complete(agent_id)
    assert text_of(await collect(ax.activity.stream(agent_id))) == "old new text"


async def test_unreadable_events_are_skipped(running: Deployment) -> None:
    agent_id = ax.activity.create("by hand")
    good = '{"type":"agent","at":1.0,"epoch":null,"data":{"agent":"A"}}'
    bad = ["", "[]", "null", '{"type":"result","at":1,"data":{}}', good.replace("1.0", "NaN"), "{}"]
    RUNTIME.backend.publish(ax.CONF.queue_name, {agent_id: [*bad, good]})
    ax.activity.complete(agent_id)
    assert kinds(await collect(ax.activity.stream(agent_id))) == ["status", "agent", "result"]


async def test_an_unknown_task_is_refused(running: Deployment) -> None:
    with pytest.raises(ax.ActivityNotFoundError):
        await ax.activity.stream(uuid4()).open()
    with pytest.raises(ax.ActivityNotFoundError):
        await collect(ax.activity.stream(uuid4()))


async def test_another_tenants_task_is_refused(running: Deployment) -> None:
    task = await ax.enqueue("work", {"key": "m"}, metadata={"tenant": "a"})
    with pytest.raises(ax.ActivityNotFoundError):
        await collect(ax.activity.stream(task.agent_id, metadata_filter={"tenant": "b"}))
    assert (await collect(ax.activity.stream(task.agent_id, metadata_filter={"tenant": "a"})))[-1].final


async def test_many_readers_of_a_task_read_its_log_once(sqlite_tables: str) -> None:
    ax.configure(database_url=sqlite_tables)
    agent_id = await asyncio.to_thread(ax.activity.create, "by hand")
    streams = [await ax.activity.stream(agent_id).open() for _ in range(40)]
    reads: list[str] = []
    event.listen(
        RUNTIME.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: reads.append(statement),
    )
    seen = [
        asyncio.create_task(collect(each, lambda event: event.data.get("message") == "line 3"))
        for each in streams
    ]
    for number in (1, 2, 3):
        await asyncio.to_thread(ax.activity.update, agent_id, f"line {number}")
        await asyncio.sleep(0)
    assert all(
        lines_of(events)[-3:] == ["line 1", "line 2", "line 3"] for events in await asyncio.gather(*seen)
    )
    pages = [statement for statement in reads if "activity_log" in statement and "LIMIT" in statement]
    assert len(pages) < len(streams)
    RUNTIME.close()

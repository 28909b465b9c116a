"""Sleeping and waiting for events inside a task, without a slot and across restarts."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import to_json, to_jsonable_python

from agentexec.arguments.checks import (
    MAX_SECONDS,
    check_number,
    check_seconds,
    check_text,
    check_timeout,
    first_line,
)
from agentexec.client.results import wanted_codec
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, Postponed, UsageError, WaitingForEvent
from agentexec.journal import events as store
from agentexec.journal.canonical import digest
from agentexec.journal.current_call import enclosing_calls
from agentexec.journal.facts import FactKind, dump, path_segment
from agentexec.journal.models import MAX_PATH
from agentexec.journal.recorder import Recorder, Scope
from agentexec.journal.scopes import current_scope
from agentexec.journal.slot_release import slot_released
from agentexec.journal.wake_ups import mark_woken
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.values.codec import first_error
from agentexec.workflow.blocking import run_blocking

UNIT_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}
"""Seconds in each unit of a sleep."""

log = logging.getLogger("agentexec.waits")


async def sleep(seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0) -> None:
    """Sleep: `await ax.sleep(hours=6)`. Inside a task the sleep occupies no slot and continues across restarts.

    The wake-up time is recorded when the sleep first begins. A task that sleeps for more than 5 seconds leaves its
    worker, and its handler runs again from its top when the task wakes up. So whatever the handler did before must be
    recorded, as agent runs, steps and children are. Outside a task this is `asyncio.sleep`.

    Args:
        seconds: Seconds to sleep. The sleep takes the sum of all arguments.
        minutes: Minutes to sleep.
        hours: Hours to sleep.
        days: Days to sleep.

    Raises:
        UsageError: The sum is negative, or an argument is not a time.
        LeaseLostError: The task now belongs to another worker, or was canceled.
    """
    length = _length(seconds=seconds, minutes=minutes, hours=hours, days=days)
    scope, slots = current_scope(), RUNTIME.slots
    if scope is None or slots is None:
        _check_length(length)
        await asyncio.sleep(length.total_seconds())
        return
    recorder = scope.recorder
    await recorder.open()
    path = scope.claim_path("sleep", digest("sleep"), "a sleep")
    facts = recorder.facts(path)
    if facts:
        until = datetime.fromisoformat(json.loads(facts[0].value))
        if slots.skips_sleep:
            return
    else:
        # A recorded sleep is not checked: a length computed as `due - now` is negative once the task has woken up.
        _check_length(length)
        until = utc_now() + length
        await recorder.record(path, FactKind.OUTCOME, digest("sleep"), dump(until.isoformat(), "The sleep"))
    await _sleep_until(recorder, until, slots.max_inline_sleep)


def sleep_sync(seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0) -> None:
    """Sleep: `sleep` for code without an event loop, with the same arguments and errors.

    Inside a task this is for handlers that are plain functions.
    """
    run_blocking(lambda: sleep(seconds, minutes=minutes, hours=hours, days=days))


def _length(**parts: float) -> timedelta:
    """Return the sum of times in different units."""
    for name, part in parts.items():
        check_number(f"{name}=", part, minimum=-MAX_SECONDS, maximum=MAX_SECONDS)
    total = sum(parts[name] * seconds for name, seconds in UNIT_SECONDS.items())
    return timedelta(seconds=check_seconds("The sum of seconds=, minutes=, hours= and days=", total))


def _check_length(length: timedelta) -> None:
    if length < timedelta():
        raise UsageError("A sleep takes 0 seconds or more.")


async def _sleep_until(recorder: Recorder, until: datetime, max_inline_sleep: float) -> None:
    with recorder.active_calls.suspend(tuple(enclosing_calls())), recorder.waits.open(None, until):
        async with slot_released(in_process=False):
            async for may_leave in recorder.poll():
                left = (until - utc_now()).total_seconds()
                if left <= 0:
                    return
                if left <= max_inline_sleep:
                    await asyncio.sleep(left)
                    return
                if may_leave:
                    first = recorder.waits.earliest_end or until
                    raise recorder.waits.leave(Postponed, f"Sleeping until {_shown(first)}.", utc_now())


async def wait_for_event(
    name: str, key: str = "", *, timeout: float | timedelta | None = None, type: Any | None = None
) -> Any:
    """Wait inside a task for `ax.send_event(name, key, value)`, without a slot and across restarts.

    The task leaves its worker, and its handler runs again from its top when the event comes. So whatever the handler
    did before must be recorded, as agent runs, steps and children are. Every task that waits for the same name and key
    gets the event. Events count from the moment the task was enqueued; each further wait of the task gets the next one.

    Args:
        name: Name of the event.
        key: Key of the event, for example the id of a customer.
        timeout: Seconds (or a timedelta) from the first time the task comes here; None waits without limit.
        type: Type that the value is decoded as; by default it is plain JSON data.

    Returns:
        The value of the event.

    Raises:
        TimeoutError: The event did not come in time.
        UsageError: Called outside a task, an argument is invalid, or the value does not fit `type`.
        LeaseLostError: The task now belongs to another worker, or was canceled.
    """
    scope = current_scope()
    if scope is None:
        raise UsageError("ax.wait_for_event() is for code inside a task.")
    _check_name(name, key)
    check_timeout("timeout=", timeout)
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    codec = None if type is None else wanted_codec(type)
    recorder = scope.recorder
    await recorder.open()
    wanted = digest(["event", name, key])
    # The path contains the key, because concurrent branches may come here in another order in another attempt.
    place = f"event:{path_segment(name)}:{digest(key)[:16]}" if key else f"event:{path_segment(name)}"
    path = scope.claim_path(place, wanted, f"the wait for event {name}")
    facts = recorder.facts(path)
    if facts:
        outcome = json.loads(facts[0].value)
    else:
        found = await _await_event(scope, path, name, key, seconds)
        outcome = {"timed_out": True} if found is None else {"value": json.loads(found)}
        await recorder.record(path, FactKind.OUTCOME, wanted, dump(outcome, f"The event {name}"))
    if "timed_out" in outcome:
        raise TimeoutError(f"Event {_title(name, key)} did not come within {seconds} seconds.")
    if codec is None:
        return outcome["value"]
    try:
        return codec.load(to_json(outcome["value"]))
    except ValidationError as error:
        raise UsageError(
            f"The value of event {_title(name, key)} does not fit type=: {first_error(error)}."
        ) from None


def wait_for_event_sync(
    name: str, key: str = "", *, timeout: float | timedelta | None = None, type: Any | None = None
) -> Any:
    """Wait for an event: `wait_for_event` for handlers that are plain functions.

    Arguments, result and errors are those of `wait_for_event`.
    """
    return run_blocking(lambda: wait_for_event(name, key, timeout=timeout, type=type))


async def _await_event(scope: Scope, path: str, name: str, key: str, seconds: float | None) -> str | None:
    """Return the event's value as JSON, or None if the wait has timed out."""
    recorder = scope.recorder
    expires_at = None if seconds is None else utc_now() + timedelta(seconds=seconds)
    wanted = store.EventRequest(path, name, key, expires_at)
    suspended = recorder.active_calls.suspend(tuple(enclosing_calls()))
    with suspended, recorder.waits.open("event", expires_at) as wait:
        async with slot_released(in_process=False):
            async for may_leave in recorder.poll():
                now = utc_now()
                found = await recorder.write_with_retry(
                    store.take_event, RUNTIME.engine, recorder.lease, wanted, now
                )
                if found.value is not None:
                    return found.value
                if found.expired:
                    return None
                wait.ends_at = found.expires_at
                if may_leave:
                    raise recorder.waits.leave(
                        WaitingForEvent, f"Waiting for event: {_title(name, key)}", now
                    )
    raise AssertionError("unreachable: poll() has no end")


async def send_event(name: str, key: str = "", value: Any = None) -> int:
    """Send an event to the tasks that wait for it, and to those that wait for it within the next 30 days.

    Args:
        name: Name of the event, 1 to 255 characters.
        key: Key of the event, up to 255 characters.
        value: Any JSON value or pydantic model.

    Returns:
        The number of waiting tasks that were woken.

    Raises:
        UsageError: The value cannot be written as JSON, or the name or the key is invalid.
        PayloadTooLargeError: The value is above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_Sending(name, key, value).send)


def send_event_sync(name: str, key: str = "", value: Any = None) -> int:
    """Send an event: `send_event` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_Sending(name, key, value).send)


class _Sending:
    """Sending of one event, which may be tried again after UnavailableError."""

    def __init__(self, name: str, key: str, value: Any) -> None:
        _check_name(name, key)
        self._event = (name, key, _event_text(name, value), utc_now())
        self._tried = False

    def send(self) -> int:
        """Save the event and wake the tasks that wait for it; return their number."""
        may_exist, self._tried = self._tried, True
        return _wake(store.save_event(RUNTIME.engine, *self._event, may_exist=may_exist))


def _wake(queues: Mapping[str, Sequence[UUID]]) -> int:
    woken = 0
    for queue, agent_ids in queues.items():
        woken += len(agent_ids)
        with RUNTIME.best_effort(log, "%d task(s) resume when it is back.", len(agent_ids)):
            RUNTIME.backend.make_ready(queue or CONF.queue_name, agent_ids)
            mark_woken(RUNTIME.engine, "event", agent_ids)
    return woken


def _event_text(name: str, value: Any) -> str:
    """Return the value of an event as JSON text, or raise UsageError or PayloadTooLargeError."""
    what = f"value= of event {name}"
    try:
        plain = to_jsonable_python(value)
        text = dump(plain, what)
    except AgentexecError:
        raise
    except RecursionError:
        raise UsageError(f"{what} is nested too deeply, or contains itself.") from None
    except Exception as error:  # whatever the objects of users raise
        raise UsageError(f"{what} cannot be written as JSON: {first_line(error)}.") from None
    if "\\u0000" in json.dumps(plain):
        raise UsageError(f"{what} holds a NUL character, which PostgreSQL cannot store.")
    return text


def _check_name(name: str, key: str) -> None:
    check_text("name=", name, MAX_PATH)
    check_text("key=", key, MAX_PATH, may_be_empty=True)


def _title(name: str, key: str) -> str:
    return f"{name}({key})" if key else name


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

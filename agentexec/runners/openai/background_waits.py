"""Waits for background responses: by polling, or by streams that are taken up again by the number of the last event."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from openai import APIConnectionError, APIStatusError, NotFoundError
from openai.types.responses import ResponseCompletedEvent, ResponseFailedEvent, ResponseIncompleteEvent

from agentexec.journal.slot_release import slot_released
from agentexec.outage import backoff
from agentexec.runners.openai.events import field
from agentexec.runners.openai.limits import RETRYABLE_STATUSES

log = logging.getLogger("agentexec.background")

T = TypeVar("T")

INLINE_SECONDS = 5.0
"""Seconds of a wait for which the task keeps its slot."""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds between two looks at a response; in between, an eighth of the time that has passed."""

POLL_TIMEOUT = 60.0

PATIENCE = 600.0
"""Seconds for which the provider may fail before a wait gives up; the next attempt goes on with it."""

NOT_FOUND_LOOKS = 3
"""Looks in a row that must find nothing before a response counts as gone: it may be too new for the server that is asked."""

STREAM_TRIES = 4
"""Tries in a row to go on with a stream that bring no event, after which the response is polled."""

PENDING = ("queued", "in_progress")

_STATUS_OF_LAST_EVENT = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "response.cancelled": "cancelled",
}
_EVENT_OF_STATUS: dict[str, tuple[Any, str]] = {
    "completed": (ResponseCompletedEvent, "response.completed"),
    "incomplete": (ResponseIncompleteEvent, "response.incomplete"),
}
_BEGIN_EVENTS = ("response.created", "response.queued", "response.in_progress")
_ERROR_EVENTS = ("error", "response.error")


@dataclass(slots=True)
class Attached:
    """A response whose events are followed, and how far: `after` is the number of the last event that came."""

    response_id: str
    stream: Any = None
    first: Any = None
    can_stream: bool = True
    after: int | None = None


def is_over(response: Any) -> bool:
    """Return True for a response that will not change any more; a server without background responses answers at once."""
    return response.status not in PENDING


def event_status(event: Any) -> str | None:
    """Return the status with which an event ends its response; None for any other event."""
    return _STATUS_OF_LAST_EVENT.get(field(event, "type"))


def shows_output(event: Any) -> bool:
    """Return True for an event of the answer itself, which cannot be taken back."""
    return field(event, "type") not in _BEGIN_EVENTS and event_status(event) is None


def end_event(response: Any, after: int | None) -> Any:
    """Return the last event of a response of which no stream tells."""
    kind, type = _EVENT_OF_STATUS.get(response.status, (ResponseFailedEvent, "response.failed"))
    return kind.construct(type=type, sequence_number=0 if after is None else after + 1, response=response)


async def long_wait(wait: Coroutine[Any, Any, T], on_long: Callable[[], Awaitable[object]]) -> T:
    """Await something; after INLINE_SECONDS, `on_long` is called, and the task waits without a slot of its worker."""
    waiting = asyncio.ensure_future(wait)
    try:
        await asyncio.wait({waiting}, timeout=INLINE_SECONDS)
        if not waiting.done():
            await on_long()
            async with slot_released(in_process=False):
                await asyncio.wait({waiting})
        return waiting.result()
    finally:
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})


async def poll(responses: Any, response_id: str) -> Any:
    """Return a response when it is over, None if the provider does not have it any more.

    Raises the provider's error if it refuses to say, or is away for longer than PATIENCE.
    """
    began = time.monotonic()
    failing_since: float | None = None
    missing = 0
    while True:
        try:
            response = await responses.retrieve(response_id, timeout=POLL_TIMEOUT)
        except NotFoundError:
            missing += 1
            if missing >= NOT_FOUND_LOOKS:
                return None
        except APIConnectionError as error:
            failing_since = _failing_since(failing_since, error)
        except APIStatusError as error:
            if error.status_code not in RETRYABLE_STATUSES:
                raise
            failing_since = _failing_since(failing_since, error)
        else:
            failing_since, missing = None, 0
            if is_over(response):
                return response
        await asyncio.sleep(min(max((time.monotonic() - began) / 8, SHORTEST_PAUSE), LONGEST_PAUSE))


def _failing_since(before: float | None, error: Exception) -> float:
    """Return the time of the first failure in a row; raises the error when that is too long ago."""
    now = time.monotonic()
    if before is not None and now - before > PATIENCE:
        raise error
    return now if before is None else before


async def follow(
    responses: Any, attached: Attached, on_long: Callable[[], Awaitable[object]]
) -> AsyncGenerator[Any]:
    """Yield the events of a response. It ends without the last one if the stream cannot be taken up again."""
    tries = 0
    try:
        while attached.can_stream and tries < STREAM_TRIES:
            if attached.stream is None:
                await asyncio.sleep(backoff(tries) if tries else 0)
                attached.stream = await _attach(responses, attached)
            event, attached.first = attached.first, None
            if event is None:
                event = await long_wait(_next(attached.stream), on_long)
            if event is None:
                await _close(attached)
                tries += 1
                continue
            if field(event, "type") in _ERROR_EVENTS:
                # Of the stream or of the response: the response itself says.
                return
            number = field(event, "sequence_number")
            if number is not None and attached.after is not None and number <= attached.after:
                continue
            attached.after, tries = number, 0
            yield event
            if event_status(event) is not None:
                return
    finally:
        await _close(attached)


async def _attach(responses: Any, attached: Attached) -> Any:
    """Return a stream of the events that have not come yet; None if there is none for now."""
    after = {} if attached.after is None else {"starting_after": attached.after}
    try:
        return await responses.retrieve(attached.response_id, stream=True, **after)
    except APIConnectionError:
        return None
    except APIStatusError as error:
        # Without streams of its responses, or without this response: a look at it will tell.
        attached.can_stream = error.status_code in RETRYABLE_STATUSES
        return None


async def _next(stream: Any) -> Any:
    """Return the next event of a stream; None at its end, and when its connection breaks."""
    if stream is None:
        return None
    try:
        return await anext(stream, None)
    except Exception as error:
        log.debug("A stream broke: %s", type(error).__name__)
        return None


async def _close(attached: Attached) -> None:
    stream, attached.stream = attached.stream, None
    close = getattr(stream, "close", None)
    if close is not None:
        try:
            await close()
        except Exception as error:
            log.debug("A stream could not be closed: %s", type(error).__name__)

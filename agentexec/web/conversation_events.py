"""Live events of a conversation as server-sent events, which go on from turn to turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from agentexec.client.conversation import Conversation
from agentexec.client.conversation_stream import ConversationStream
from agentexec.conversations.turns import ConversationEvent
from agentexec.errors import UnavailableError
from agentexec.web.server_sent_events import HEADERS, KEEP_ALIVE_SECONDS, NAMES, RETRY_MS, last_event_id

log = logging.getLogger("agentexec.web")

RESPONSE_SECONDS = 300.0
"""Seconds after which a response ends. The browser asks again, so that rights that were taken away count."""


async def conversation_events(
    chat: Conversation,
    request: Request,
    *,
    after: str | None,
    deltas: bool,
    until: datetime | None,
    keep_alive: float = KEEP_ALIVE_SECONDS,
) -> Response:
    """Return the events of a conversation as server-sent events; they resume after `Last-Event-ID`, or else `after`.

    Args:
        chat: The conversation.
        request: The request.
        after: Id of the last event that the client has seen.
        deltas: False leaves out the `text_delta` events.
        until: Time at which the permission to read ends; None for none.
        keep_alive: Seconds of silence after which a comment is sent.
    """
    events = await chat.stream(after=last_event_id(request) or after, deltas=deltas).open()
    end = datetime.now(UTC) + timedelta(seconds=RESPONSE_SECONDS)
    frames = _frames(events, keep_alive, end if until is None else min(end, until))
    return StreamingResponse(frames, media_type="text/event-stream", headers=HEADERS)


async def _frames(events: ConversationStream, keep_alive: float, end: datetime) -> AsyncGenerator[str]:
    # The id alone: a connection that is lost before the first event resumes in the same place.
    yield f"retry: {RETRY_MS}\nid: {events.begin_id}\n\n"
    iterator = aiter(events)
    next_event = asyncio.ensure_future(anext(iterator))
    try:
        while (left := (end - datetime.now(UTC)).total_seconds()) > 0:
            done, _ = await asyncio.wait([next_event], timeout=min(keep_alive, left))
            if done:
                frame = _frame(next_event.result())
                next_event = asyncio.ensure_future(anext(iterator))
                yield frame
            else:
                yield ": keep-alive\n\n"
    except UnavailableError as error:
        log.warning("A stream of a conversation ends: %s", error)  # the client resumes it
    finally:
        next_event.cancel()
        await asyncio.gather(next_event, return_exceptions=True)
        await iterator.aclose()


def _frame(event: ConversationEvent) -> str:
    name = NAMES.get(event.type, event.type)
    return f"id: {event.id}\nevent: {name}\ndata: {event.model_dump_json()}\n\n"

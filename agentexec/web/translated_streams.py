"""Live events of a task in the protocols of other front ends: responses for endpoints to return."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from agentexec.activity.live.stream import ActivityStream, stream
from agentexec.activity.schemas import ActivityEvent
from agentexec.client.approvals import list_approvals
from agentexec.errors import AgentexecError, UsageError
from agentexec.runtime import RUNTIME
from agentexec.web.ag_ui import AgUiTranslator
from agentexec.web.ai_sdk import AiSdkTranslator
from agentexec.web.errors import refusal
from agentexec.web.frames import Frames, parse_place
from agentexec.web.server_sent_events import (
    HEADERS,
    KEEP_ALIVE_SECONDS,
    RETRY_MS,
    idle_seconds,
    is_over,
    last_event_id,
)
from agentexec.web.translation import Translator

TASK_HEADER = "X-Agentexec-Task"
"""Header of a response that tells the id of its task, for clients that have only posted a message."""

MAX_APPROVALS = 20
"""Calls that a message tells of when a task waits for several."""

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


async def ag_ui_stream(
    agent_id: UUID | str,
    request: Request | None = None,
    *,
    run_input: Any = None,
    after: str | None = None,
    deltas: bool = True,
    metadata_filter: Mapping[str, Any] | None = None,
    keep_alive: float = KEEP_ALIVE_SECONDS,
    until: datetime | None = None,
) -> Response:
    """Return the events of one task as AG-UI events, for an endpoint to return.

    A `GET` follows a task; a `POST` that enqueues the task first is what `HttpAgent` and CopilotKit call.

    Args:
        agent_id: Id of the task.
        request: Request whose header `Last-Event-ID` says after which event a lost connection goes on. It gets the
            rest of the same stream, without a second RUN_STARTED.
        run_input: The RunAgentInput that the client has posted, or a mapping like it: its `threadId` and `runId` are
            those of the events. Otherwise both are the task's id.
        after: `id` of the last event seen, for a client that starts again: it gets RUN_STARTED, and the start of the
            text that was open.
        deltas: False leaves out the model's text; a result that is a text comes at the end.
        metadata_filter: Values that the task's metadata must have; otherwise the task counts as unknown.
        keep_alive: Seconds of silence after which a comment is sent.
        until: Time at which the response ends, such as the end of the permission to read; None for none.

    Returns:
        A streaming response, or an empty one with status 204 if the client has seen everything.

    Raises:
        HTTPException: 404 for an unknown task, 422 for an invalid argument, 503 while a server cannot be reached,
            or the database lacks tables.
    """
    ids = _as_mapping(run_input)
    thread_id, run_id = (
        _first_text(ids, *names) for names in (("threadId", "thread_id"), ("runId", "run_id"))
    )

    def translator(state: str) -> Translator:
        return AgUiTranslator(agent_id, state, thread_id=thread_id, run_id=run_id)

    return await _respond(
        translator, agent_id, _Options(request, after, deltas, metadata_filter, keep_alive, until), {}, b""
    )


async def ai_sdk_stream(
    agent_id: UUID | str,
    request: Request | None = None,
    *,
    after: str | None = None,
    deltas: bool = True,
    metadata_filter: Mapping[str, Any] | None = None,
    keep_alive: float = KEEP_ALIVE_SECONDS,
    until: datetime | None = None,
) -> Response:
    """Return the events of one task as the AI SDK's UI message stream, for an endpoint to return.

    A `POST` that enqueues the task first is what `useChat` sends messages to; a `GET` is what its `resume` calls: it
    gets the whole message again, which has the task's id.

    Args:
        agent_id: Id of the task.
        request: Request whose header `Last-Event-ID` says after which event a lost connection goes on, with the rest
            of the same stream.
        after: `id` of the last event seen, for a client that has the message so far and reads on in a new stream.
        deltas: False leaves out the model's text; a result that is a text comes at the end.
        metadata_filter: Values that the task's metadata must have; otherwise the task counts as unknown.
        keep_alive: Seconds of silence after which a comment is sent.
        until: Time at which the response ends, such as the end of the permission to read; None for none.

    Returns:
        A streaming response, or an empty one with status 204 if the client has seen everything.

    Raises:
        HTTPException: 404 for an unknown task, 422 for an invalid argument, 503 while a server cannot be reached,
            or the database lacks tables.
    """

    def translator(state: str) -> Translator:
        return AiSdkTranslator(agent_id, state)

    options = _Options(request, after, deltas, metadata_filter, keep_alive, until)
    return await _respond(translator, agent_id, options, {"x-vercel-ai-ui-message-stream": "v1"}, DONE)


def agent_input(messages: Any) -> list[dict[str, str]]:
    """Return posted messages as the input of an agent.

    Only texts of `user` and `assistant` messages are taken over: a browser does not write the system's messages.

    Args:
        messages: A RunAgentInput of AG-UI or a body of `useChat`, or its `messages`; models or mappings.

    Returns:
        Messages with `role` and `content`, for `Runner.run(agent, input)`.

    Raises:
        UsageError: There is no list of messages, or a message is not an object with a `role`.
    """
    whole = _mapping(messages)
    items = messages if whole is None else whole.get("messages")
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise UsageError('messages: give a list of messages, such as {"messages": [{"role": "user", …}]}.')
    found = []
    for number, item in enumerate(items):
        message = _as_mapping(item)
        if not isinstance(message.get("role"), str):
            raise UsageError(f"messages[{number}]: a message is an object with a role.")
        role, text = message.get("role"), _text_of(message)
        if role in ("user", "assistant") and text:
            found.append({"role": str(role), "content": text})
    return found


class _Options(NamedTuple):
    request: Request | None
    after: str | None
    deltas: bool
    metadata_filter: Mapping[str, Any] | None
    keep_alive: float
    until: datetime | None


async def _respond(
    make: Callable[[str], Translator],
    agent_id: UUID | str,
    options: _Options,
    headers: Mapping[str, str],
    end: bytes,
) -> Response:
    resumed = last_event_id(options.request)
    try:
        place = parse_place(resumed or options.after)
        events = stream(
            agent_id, after=place.event, deltas=options.deltas, metadata_filter=options.metadata_filter
        )
        await events.open()
    except AgentexecError as error:
        raise refusal(error) from None
    if events.exhausted:
        events.close()
        return Response(status_code=204)
    frames = Frames(make(place.state), place, begin=not resumed)
    return StreamingResponse(
        _chunks(events, frames, options, end),
        media_type="text/event-stream",
        headers={**HEADERS, TASK_HEADER: str(agent_id), **headers},
    )


async def _chunks(
    events: ActivityStream, frames: Frames, options: _Options, end: bytes
) -> AsyncGenerator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode() + b"".join(frames.begin())
    batches = events.batches(idle=idle_seconds(options.keep_alive, options.until))
    try:
        async for batch in batches:
            await _add_approvals(frames.agent_id, batch)
            yield b"".join(frames.of(batch)) or KEEP_ALIVE
            if is_over(options.until):
                return
        if events.ended:
            yield end
    finally:
        await batches.aclose()


async def _add_approvals(agent_id: str, batch: Sequence[ActivityEvent]) -> None:
    """Give the last event that says that the task waits for approval the calls that wait, if there still are some."""
    waiting = [
        event for event in batch if str(event.data.get("message")).startswith("Waiting for approval: ")
    ]
    if not waiting:
        return
    try:
        calls = await RUNTIME.run_in_thread(_approvals, agent_id)
    except AgentexecError:
        return
    if calls:
        waiting[-1].data["approvals"] = calls


def _approvals(agent_id: str) -> list[dict[str, Any]]:
    with Session(RUNTIME.engine) as session:
        waiting = list_approvals(session, agent_id, limit=MAX_APPROVALS)
    return [
        call.model_dump(mode="json", include={"call_id", "tool", "arguments", "kind"}) for call in waiting
    ]


def _text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message: `content` of AG-UI is a text or a list of parts, the AI SDK has `parts`."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else message.get("parts")
    texts = [_as_mapping(part) for part in parts] if isinstance(parts, list) else []
    return "\n".join(
        part["text"] for part in texts if part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _first_text(values: Mapping[str, Any], *names: str) -> str | None:
    return next((values[name] for name in names if isinstance(values.get(name), str) and values[name]), None)


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return _mapping(value) or {}


def _mapping(value: Any) -> Mapping[str, Any] | None:
    dump = getattr(value, "model_dump", None)
    whole = dump(by_alias=True) if callable(dump) else value
    return whole if isinstance(whole, Mapping) else None

"""Endpoints for other front ends: the live events of a task as AG-UI events and as the AI SDK's UI message stream."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response

from agentexec.web.access import TaskReader
from agentexec.web.endpoints import Endpoints
from agentexec.web.translated_streams import ag_ui_stream, ai_sdk_stream

ENDPOINTS = Endpoints("Streams for other front ends")

After = Annotated[
    str | None,
    Query(
        description="`id` of the last event seen, for a new stream that starts there; with the header `Last-Event-ID` "
        "the same stream goes on."
    ),
]
Deltas = Annotated[bool, Query(description="False leaves out the text of the model.")]
Id = Annotated[
    str | None, Query(max_length=200, description="Named in the events; the task's id if it is missing.")
]


@ENDPOINTS.get("/activity/{agent_id}/ag-ui", summary="Live events of a task, as AG-UI", stream=True)
async def stream_ag_ui(
    agent_id: UUID,
    request: Request,
    caller: TaskReader,
    after: After = None,
    deltas: Deltas = True,
    thread_id: Id = None,
    run_id: Id = None,
) -> Response:
    """Stream the events of a task as AG-UI events, up to its end, or to that of the read token."""
    return await ag_ui_stream(
        agent_id,
        request,
        run_input={"threadId": thread_id, "runId": run_id},
        after=after,
        deltas=deltas,
        metadata_filter=caller.metadata_filter,
        until=caller.expires_at,
    )


@ENDPOINTS.get("/activity/{agent_id}/ai-sdk", summary="Live events of a task, for the AI SDK", stream=True)
async def stream_ai_sdk(
    agent_id: UUID, request: Request, caller: TaskReader, after: After = None, deltas: Deltas = True
) -> Response:
    """Stream the events of a task as the AI SDK's UI message stream, up to its end, or to that of the read token."""
    return await ai_sdk_stream(
        agent_id,
        request,
        after=after,
        deltas=deltas,
        metadata_filter=caller.metadata_filter,
        until=caller.expires_at,
    )

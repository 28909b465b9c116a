"""The Tasks extension of MCP (SEP-2663): to a client that knows it, a task of `enqueue` is a task of the protocol.

The `mcp` package has the place for extensions, and not yet this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import anyio.to_thread
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, RequestParams, Result

from agentexec.activity.queries.contents import contents
from agentexec.activity.queries.detail import detail_without_log, newest_lines
from agentexec.activity.schemas import ActivityDetailSchema
from agentexec.client.approvals import list_approvals
from agentexec.client.cancel import cancel_sync
from agentexec.errors import AgentexecError
from agentexec.mcp.answers import answer, failure, task_of
from agentexec.mcp.scope import Scope
from agentexec.task import Status, parse_agent_id
from agentexec.values.presentation import read_json

TASKS = "io.modelcontextprotocol/tasks"

POLL_MILLISECONDS = 2_000
"""Milliseconds between two questions of a client."""

STATUSES = {Status.COMPLETE: "completed", Status.ERROR: "completed", Status.CANCELED: "cancelled"}
"""Statuses of the protocol; a failed task is a completed call whose result is an error."""


class TaskParams(RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`."""

    task_id: str


class TaskState(Result):
    """State of a task in the terms of the protocol."""

    result_type: Literal["task", "complete"] = "complete"
    task_id: str
    status: str
    status_message: str | None = None
    created_at: str
    last_updated_at: str
    ttl_ms: int | None = None
    poll_interval_ms: int = POLL_MILLISECONDS
    result: dict[str, Any] | None = None


class TasksExtension(Extension):
    """Tasks of agentexec as tasks of the protocol, for clients that declare the extension.

    Args:
        scope: The tasks that the client may see.
        may_cancel: Whether it may cancel them.
    """

    identifier = TASKS

    def __init__(self, scope: Scope, *, may_cancel: bool) -> None:
        self._scope = scope
        self._may_cancel = may_cancel

    def methods(self) -> Sequence[MethodBinding]:
        """Return the methods that read and cancel a task."""
        return (
            MethodBinding("tasks/get", TaskParams, self._get),
            MethodBinding("tasks/cancel", TaskParams, self._cancel),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Return the task instead of its ID, if the client can follow it."""
        result = await call_next(ctx)
        known = ctx.session.client_capabilities
        if params.name != "enqueue" or known is None or TASKS not in (known.extensions or {}):
            return result
        agent_id = task_of(result)
        return result if agent_id is None else await _in_thread(self._state, agent_id, "task")

    async def _get(self, _ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        return await _in_thread(self._state, params.task_id, "complete")

    async def _cancel(self, _ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        if not self._may_cancel:
            raise MCPError(INVALID_PARAMS, "This server does not let you cancel; it needs --allow cancel.")
        scope = self._scope
        await _in_thread(lambda: cancel_sync(params.task_id, metadata_filter=scope.labels, by=scope.by))
        return Result()

    def _state(self, task_id: str, kind: Literal["task", "complete"]) -> TaskState:
        wanted = parse_agent_id(task_id)
        with self._scope.reading() as db:
            task = detail_without_log(db, wanted, self._scope.labels)
            message = next((line.message for line in newest_lines(db, wanted, 1)), None)
            if task.status not in STATUSES and list_approvals(db, wanted, limit=1):
                # Not input_required: the approval of the call is a tool of its own, and perhaps a person's.
                message = "A call waits for approval; see the tool `approvals`."
            result = None
            if kind == "complete" and task.status in (Status.COMPLETE, Status.ERROR):
                result = self._result(task, contents(db, wanted).result)
        return TaskState(
            result_type=kind,
            task_id=str(wanted),
            status=STATUSES.get(task.status, "working"),
            status_message=message and self._scope.presenter().text(message, 500),
            created_at=task.created_at.isoformat(),
            last_updated_at=task.updated_at.isoformat(),
            result=None
            if result is None
            else result.model_dump(by_alias=True, exclude_none=True, mode="json"),
        )

    def _result(self, task: ActivityDetailSchema, text: str | None) -> CallToolResult:
        presenter = self._scope.presenter()
        if task.status is Status.ERROR:
            return failure(presenter.text(task.error or "The task failed.", 2_000))
        return answer(None if text is None else presenter.present(read_json(text)))


async def _in_thread(act: Any, *arguments: Any) -> Any:
    try:
        return await anyio.to_thread.run_sync(act, *arguments)
    except AgentexecError as error:
        raise MCPError(INVALID_PARAMS, str(error)) from error

"""Tools that read: list, show, logs and approvals."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from agentexec.activity.queries.contents import contents
from agentexec.activity.queries.detail import detail_without_log, newest_lines
from agentexec.activity.queries.handle import find_task
from agentexec.activity.queries.listing import list_activities
from agentexec.activity.schemas import ActivityDetailSchema
from agentexec.client.approvals import MAX_LISTED, ApprovalSchema, list_approvals
from agentexec.journal.cuts import list_runs
from agentexec.mcp.scope import Scope
from agentexec.runtime import RUNTIME
from agentexec.task import parse_agent_id
from agentexec.values.presentation import Presenter, read_json

AgentId = Annotated[str, Field(description="ID of the task, as `list` shows it.", max_length=64)]
Name = Annotated[str, Field(max_length=255)]

MAX_MESSAGE = 2_000
"""Characters of a log line, an error or, in a list of calls, the arguments of a call."""

ARGUMENTS_PAGE = 8_000
"""Characters of the arguments of a call on one page; JSON may take six times as many."""

CHILDREN = 50
"""Children of a task that are shown."""


def list_tasks(
    scope: Scope,
    status: Annotated[
        Literal["queued", "running", "complete", "error", "canceled"] | None,
        Field(description="Only tasks with this status."),
    ] = None,
    task: Annotated[Name | None, Field(description="Only tasks with this name.")] = None,
    text: Annotated[
        Name | None, Field(description="Only tasks with this text in their name or latest message.")
    ] = None,
    page_size: Annotated[int, Field(ge=1, le=50, description="Number of tasks.")] = 20,
    after: Annotated[
        str | None, Field(max_length=1000, description="`next_cursor` of the page before.")
    ] = None,
) -> Any:
    """List tasks: running ones first, then queued ones, then ended ones, each newest first."""
    with scope.reading() as db:
        page = list_activities(
            db,
            page_size=page_size,
            status=status,
            task_name=task,
            text=text,
            after=after,
            metadata_filter=scope.labels,
        )
    presenter = scope.presenter()
    rows = page.model_dump(mode="json", exclude={"page"}, exclude_none=True)
    for row in rows["items"]:
        _cut(presenter, row, "latest_log_message")
    return rows


def show_task(scope: Scope, agent_id: AgentId) -> Any:
    """Show one task: its context, result, error, what it waits for, children, usage, and the turns at which it can be forked."""
    wanted = parse_agent_id(agent_id)
    with scope.reading() as db:
        task = detail_without_log(db, wanted, scope.labels)
        found = contents(db, wanted)
        calls = list_approvals(db, wanted, limit=20, metadata_filter=scope.labels)
        runs = list_runs(db, wanted)[:20]
    presenter = scope.presenter()
    facts = task.model_dump(mode="json", exclude={"logs", "children"}, exclude_none=True)
    _cut(presenter, facts, "error")
    return {
        **facts,
        "metadata": presenter.present(task.metadata),
        "context": None if found.context is None else presenter.present(read_json(found.context)),
        "result": None if found.result is None else presenter.present(read_json(found.result)),
        "result_expired": found.expired,
        "waits_for_approval": [_shown_call(presenter, call) for call in calls],
        "runs": [{"run": run, "turns": turns} for run, turns in runs],
        "children": _children(presenter, task),
    }


def show_log(
    scope: Scope,
    agent_id: AgentId,
    limit: Annotated[int, Field(ge=1, le=200, description="Number of lines, the newest ones.")] = 50,
    before: Annotated[
        int | None,
        Field(ge=1, le=2**63 - 1, description="Only lines before this one: `next` of the answer before."),
    ] = None,
) -> Any:
    """Read the newest lines of the log of one task, in the order in which they were written."""
    wanted = parse_agent_id(agent_id)
    find_task(RUNTIME.engine, wanted, scope.labels)
    with scope.reading() as db:
        lines = newest_lines(db, wanted, limit + 1, before)
    more, lines = len(lines) > limit, lines[-limit:]
    presenter = scope.presenter()
    return {
        "lines": [
            {
                "at": line.created_at.isoformat(),
                "status": line.status.value,
                "percentage": line.percentage,
                "message": presenter.text(line.message, MAX_MESSAGE),
            }
            for line in lines
        ],
        **({"next": lines[0].id} if more else {}),
    }


def list_calls(
    scope: Scope,
    limit: Annotated[int, Field(ge=1, le=50, description="Number of calls.")] = 20,
    agent_id: Annotated[AgentId | None, Field(description="Only calls of this task.")] = None,
    call_id: Annotated[
        str | None, Field(max_length=255, description="Only this call, with a long page of its arguments.")
    ] = None,
    offset: Annotated[
        int, Field(ge=0, description="First character of the arguments: `next_offset` of the page before.")
    ] = 0,
) -> Any:
    """List the calls of tools that wait for a person's approval, oldest first.

    A call with `next_offset` has more arguments than shown: ask for it by agent_id and call_id with this offset, until it
    has none.
    """
    with scope.reading() as db:
        calls = list_approvals(
            db, agent_id, limit=limit if call_id is None else MAX_LISTED, metadata_filter=scope.labels
        )
    presenter = scope.presenter()
    if call_id is None:
        return [_shown_call(presenter, call) for call in calls]
    return [_shown_call(presenter, call, offset, ARGUMENTS_PAGE) for call in calls if call.call_id == call_id]


def _shown_call(
    presenter: Presenter, call: ApprovalSchema, offset: int = 0, size: int = MAX_MESSAGE
) -> dict[str, Any]:
    # Secrets first: half a secret at the edge of a page is not recognized.
    arguments = presenter.text(call.arguments)
    end = offset + size
    return {
        "agent_id": str(call.agent_id),
        "task": call.agent_type,
        "call_id": call.call_id,
        "kind": call.kind,
        "tool": call.tool,
        "arguments": arguments[offset:end],
        **({"next_offset": end, "characters": len(arguments)} if end < len(arguments) else {}),
        "asked_at": call.created_at.isoformat(),
        "expires_at": call.expires_at and call.expires_at.isoformat(),
    }


def _children(presenter: Presenter, task: ActivityDetailSchema) -> list[dict[str, Any]]:
    rows = [child.model_dump(mode="json", exclude={"children"}) for child in task.children[:CHILDREN]]
    for row in rows:
        _cut(presenter, row, "latest_log_message")
    return rows


def _cut(presenter: Presenter, row: dict[str, Any], name: str) -> None:
    if row.get(name):
        row[name] = presenter.text(row[name], MAX_MESSAGE)

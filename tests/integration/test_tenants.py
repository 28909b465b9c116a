"""Of another tenant's task every call and command says what it says of a task that is not there, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi import HTTPException
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.activity.queries.overview import spent
from agentexec.contrib.fastapi import event_stream
from agentexec.db.clock import utc_now
from agentexec.errors import ActivityNotFoundError
from agentexec.journal.models import Approval
from agentexec.runtime import RUNTIME
from agentexec.task import new_agent_id
from tests.deployment import Deployment, run_in_process
from tests.waiting import patient

MINE, THEIRS = {"tenant": "a"}, {"tenant": "b"}
CALL = "call_1"


@pytest.fixture
def deployment(tmp_path: Any, sqlite_tables: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, sqlite_tables)
    yield deployment
    deployment.close()


@pytest.fixture
def tasks(deployment: Deployment) -> dict[str, UUID]:
    """Tenant a's tasks: one queued that waits for an approval, one that failed, one that is complete."""
    waiting = ax.enqueue_sync("work", {"key": "k"}, metadata=MINE).agent_id
    made = {"queued": waiting}
    for kind, end in (("error", ax.activity.error), ("complete", ax.activity.complete)):
        made[kind] = ax.enqueue_sync("work", {"key": kind}, metadata=MINE).agent_id
        end(made[kind])
    row = {"agent_id": waiting, "path": "p", "seq": 0, "call_id": CALL, "kind": "approval", "tool": "t"}
    with RUNTIME.engine.begin() as connection:
        row |= {"arguments": "{}", "status": "pending", "created_at": utc_now()}
        connection.execute(insert(Approval).values(**row))
    return made


def in_session(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        with Session(RUNTIME.engine) as db:
            return call(db, *args, **options)

    return run


def in_loop(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: asyncio.run(call(*args, **options))


async def _as_completed(task: UUID, **options: Any) -> list[Any]:
    return [done async for done in ax.as_completed([task], timeout=patient(5), **options)]


async def _astream(task: UUID, **options: Any) -> list[Any]:
    return [event async for event in ax.activity.stream(task, **options)]


ONE: dict[str, tuple[str, Callable[..., Any]]] = {
    "detail": ("queued", in_session(ax.activity.detail)),
    "stream": ("complete", lambda task, **options: list(ax.activity.stream(task, **options))),
    "stream, async": ("complete", in_loop(_astream)),
    "cancel": ("queued", in_loop(ax.cancel)),
    "cancel_sync": ("queued", ax.cancel_sync),
    "retry": ("error", in_loop(ax.retry)),
    "retry_sync": ("error", ax.retry_sync),
    "approve": ("queued", in_loop(lambda task, **options: ax.approve(task, CALL, **options))),
    "approve_sync": ("queued", lambda task, **options: ax.approve_sync(task, CALL, **options)),
    "reject": ("queued", in_loop(lambda task, **options: ax.reject(task, CALL, **options))),
    "reject_sync": ("queued", lambda task, **options: ax.reject_sync(task, CALL, message="no", **options)),
    "webhooks.resend": ("complete", in_loop(ax.webhooks.resend)),
    "webhooks.resend_sync": ("complete", ax.webhooks.resend_sync),
    "get_result": ("complete", in_loop(lambda task, **options: ax.get_result(task, 5, **options))),
    "get_result_sync": ("complete", lambda task, **options: ax.get_result_sync(task, 5, **options)),
    "gather": ("complete", in_loop(lambda task, **options: ax.gather(task, timeout=patient(5), **options))),
    "as_completed": ("complete", in_loop(_as_completed)),
}
"""Calls about one task, and of which of them."""

MANY: dict[str, tuple[Callable[..., Any], Any]] = {
    "list": (lambda db, **options: ax.activity.list(db, **options).total, 0),
    "items of a list": (lambda db, **options: ax.activity.list(db, **options).items, []),
    "list by text": (lambda db, **options: ax.activity.list(db, text="work", **options).items, []),
    "active_count": (ax.activity.active_count, 0),
    "approvals.list": (ax.approvals.list, []),
    "overview": (lambda db, **options: ax.activity.overview(db, **options).active, 0),
    "spent": (lambda db, **options: spent(db, **options).usage.requests, 0),
    "cancel_pending": (ax.activity.cancel_pending, 0),
    "retry_failed": (lambda db, **options: ax.retry_failed_sync(**options), 0),
    "prunable": (lambda db, **options: ax.activity.prunable(db, timedelta(), **options), 0),
    "prune": (lambda db, **options: ax.activity.prune(db, timedelta(), **options), 0),
}
"""Calls about all tasks, and what they say where there are none."""

COMMANDS: dict[str, tuple[str, list[str]]] = {
    "show": ("queued", []),
    "logs": ("complete", []),
    "logs --follow": ("complete", ["--follow"]),
    "cancel": ("queued", []),
    "retry": ("error", []),
    "approve": ("queued", [CALL]),
    "reject": ("queued", [CALL, "-m", "no"]),
}

EMPTY_COMMANDS: dict[str, tuple[list[str], str]] = {
    "list": ([], "No tasks match."),
    "approvals": ([], "No calls wait for approval."),
    "cancel-pending": (["--yes"], "Canceled 0 task(s)."),
    "failed": ([], "No task has failed."),
    "retry": (["--all", "--yes"], "No failed task matches."),
    "prune": (["--older-than", "0s", "--yes"], "Removed 0 task(s)."),
    "monitor": (["--json"], '"activities": []'),
}


def everything() -> list[Any]:
    """All that a call could change."""
    with RUNTIME.engine.connect() as connection:
        tables = ax.Base.metadata.sorted_tables
        return [sorted(map(repr, connection.execute(select(table)).all())) for table in tables]


def said(call: Callable[..., Any], task: UUID) -> str:
    with pytest.raises(ActivityNotFoundError) as caught:
        call(task, metadata_filter=THEIRS)
    return str(caught.value).replace(str(task), "ID")


@pytest.mark.parametrize("name", ONE)
def test_a_task_of_another_tenant_is_not_there(tasks: dict[str, UUID], name: str) -> None:
    kind, call = ONE[name]
    before = everything()
    assert said(call, tasks[kind]) == said(call, new_agent_id()) == "There is no activity with agent_id ID."
    assert everything() == before
    call(tasks[kind], metadata_filter=MINE)  # one's own is there, so it was the filter


@pytest.mark.parametrize("name", MANY)
def test_tasks_of_another_tenant_are_not_counted_listed_or_changed(tasks: dict[str, UUID], name: str) -> None:
    call, nothing = MANY[name]
    before = everything()
    assert in_session(call)(metadata_filter=THEIRS) == nothing
    assert everything() == before
    if name != "spent":
        assert in_session(call)(metadata_filter=MINE) != nothing


def test_a_handle_is_not_believed_with_a_filter(tasks: dict[str, UUID]) -> None:
    handle = ax.Task(agent_id=tasks["complete"], task_name="work", queue_name=ax.CONF.queue_name)
    with pytest.raises(ActivityNotFoundError):
        ax.get_result_sync(handle, 5, metadata_filter=THEIRS)


def test_the_browsers_stream_of_another_tenant_is_404(tasks: dict[str, UUID]) -> None:
    answers = []
    for task in (tasks["complete"], new_agent_id()):
        with pytest.raises(HTTPException) as caught:
            asyncio.run(event_stream(task, metadata_filter=THEIRS))
        answers.append((caught.value.status_code, caught.value.detail.replace(str(task), "ID")))
    assert answers == [(404, "There is no activity with agent_id ID.")] * 2
    with pytest.raises(HTTPException) as caught:
        asyncio.run(event_stream("no id", metadata_filter=THEIRS))
    assert caught.value.status_code == 422


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_do_not_see_another_tenants_task(
    deployment: Deployment, tasks: dict[str, UUID], name: str
) -> None:
    kind, rest = COMMANDS[name]
    verb, before = name.split()[0], everything()
    answers = []
    for task in (tasks[kind], new_agent_id()):
        code, out, err = run_in_process(deployment, verb, str(task), *rest, "--metadata", "tenant=b")
        answers.append((code, out, err.replace(str(task), "ID")))
    assert answers == [(1, "", "agentexec: There is no activity with agent_id ID.\n")] * 2
    assert everything() == before
    assert run_in_process(deployment, verb, str(tasks[kind]), *rest, "--metadata", "tenant=a")[0] == 0


@pytest.mark.parametrize("name", EMPTY_COMMANDS)
def test_commands_about_all_tasks_leave_another_tenants_out(
    deployment: Deployment, tasks: dict[str, UUID], name: str
) -> None:
    rest, expected = EMPTY_COMMANDS[name]
    before = everything()
    code, out, err = run_in_process(deployment, name, *rest, "--metadata", "tenant=b")
    assert code == 0 and expected in out + err
    assert everything() == before
    assert expected not in "".join(
        map(str, run_in_process(deployment, name, *rest, "--metadata", "tenant=a"))
    )


def test_the_table_names_every_call_that_takes_an_id_or_a_session(tasks: dict[str, UUID]) -> None:
    """A new function of `ax.activity` or `ax.approvals` stands in a table here, or is the application's own."""
    own = {"create", "update", "complete", "error", "stream", "count_active"}
    known = {name.split(".")[-1].split(",")[0] for name in (*ONE, *MANY)} | own
    public = {name for name in ax.activity.__all__ if callable(getattr(ax.activity, name)) and name.islower()}
    assert public <= known, public - known
    assert Activity.__tablename__

"""An idempotency key is free again once its task has failed, but not for the parent that enqueued that task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.client.keys import find_holder
from agentexec.client.new_task import new_task
from agentexec.journal.recorder import Recorder, Scope
from agentexec.runtime import RUNTIME
from agentexec.task import Lease


@pytest.fixture
def connection(sqlite_tables: str) -> Iterator[Connection]:
    ax.configure(database_url=sqlite_tables)
    with RUNTIME.engine.connect() as connection:
        yield connection
    RUNTIME.close()


def in_task(agent_id: UUID, epoch: int) -> Scope:
    return Scope(Recorder(Lease(agent_id, epoch)))


def failed(parent: UUID | None = None) -> ax.Task:
    task = ax.enqueue_sync("work", idempotency_key="order-1")
    with RUNTIME.engine.begin() as connection:
        mine = Activity.agent_id == task.agent_id
        connection.execute(update(Activity).where(mine).values(status=ax.Status.ERROR, parent_id=parent))
    return task


def holder(connection: Connection, scope: Scope | None, **options: Any) -> ax.Task | None:
    return find_holder(connection, new_task("work", None, idempotency_key="order-1", **options), scope)


def test_a_failed_task_loses_its_key_to_a_new_one(connection: Connection) -> None:
    failed()
    assert holder(connection, None) is None


def test_a_failed_task_keeps_its_key_on_request(connection: Connection) -> None:
    task = failed()
    assert holder(connection, None, keep_key=True) == task


def test_a_parent_finds_its_own_failed_child(connection: Connection) -> None:
    parent = uuid4()
    task = failed(parent)
    assert holder(connection, in_task(parent, 1)) == task


def test_a_parent_that_runs_again_finds_what_it_may_have_enqueued_detached(connection: Connection) -> None:
    task = failed()
    assert holder(connection, in_task(uuid4(), 2)) == task
    assert holder(connection, in_task(uuid4(), 1)) is None

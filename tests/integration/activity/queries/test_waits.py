"""Lists say why queued tasks wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.failures import failed_line
from agentexec.activity.models import Activity
from agentexec.activity.queries.waits import FAR
from agentexec.cli.queue_facts import latest_text
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME
from agentexec.task import Status

SOON = timedelta(hours=1)


@pytest.fixture
def engine(sqlite_tables: str) -> Engine:
    ax.configure(database_url=sqlite_tables)
    return RUNTIME.engine


def listed(engine: Engine, **values: Any) -> Any:
    """Enqueue a task, change its row, and return it as a list has it."""
    task = ax.enqueue_sync("work", {})
    with engine.begin() as connection:
        connection.execute(
            update(Activity).where(Activity.agent_id == task.agent_id).values(**{"priority": 1, **values})
        )
    with Session(engine) as db:
        return next(item for item in ax.activity.list(db).items if item.agent_id == task.agent_id)


@pytest.mark.parametrize(
    "message, kind, name",
    [
        ("Waiting to start.", "start", None),
        ("Waiting for approval: refund({})", "approval", "refund({})"),
        ("Waiting for event: paid 7", "event", "paid 7"),
        ("Sleeping until 2030-01-01 00:00:00 UTC.", "sleep", None),
        (failed_line(1, 3, "OSError: no", 60), "retry", None),
    ],
)
def test_a_delayed_task_says_why(engine: Engine, message: str, kind: str, name: str | None) -> None:
    start = utc_now() + SOON
    waiting = listed(engine, message=message, run_at=start).waiting
    assert (waiting.kind, waiting.until, waiting.name) == (kind, start, name)
    endless = listed(engine, message=message, run_at=utc_now() + 2 * FAR).waiting
    assert (endless.kind, endless.until) == (kind, None)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"run_at": datetime.fromisoformat("2020-01-01T00:00:00+00:00")},
        {"run_at": utc_now() + SOON, "status": Status.RUNNING},
        {"run_at": utc_now() + SOON, "queue": None},
        {"lock_key": "user:7"},
    ],
)
def test_a_task_that_waits_for_its_turn_only_has_no_reason(engine: Engine, values: Any) -> None:
    assert listed(engine, **values).waiting is None


def test_a_task_whose_lock_another_has_says_so_and_the_holder_does_not(engine: Engine) -> None:
    holder = listed(engine, lock_key="user:7", held_lock="user:7")
    assert holder.waiting is None
    waiting = listed(engine, lock_key="user:7")
    assert (waiting.waiting.kind, waiting.waiting.name) == ("lock", "user:7")
    assert latest_text(waiting, utc_now()) == "Waiting for lock user:7."
    assert listed(engine, lock_key="user:8").waiting is None


def test_the_locks_of_a_page_take_one_statement_and_other_pages_none(engine: Engine) -> None:
    sent: list[str] = []
    for _ in range(5):
        listed(engine, run_at=utc_now() + SOON)
    with Session(engine) as db:
        event.listen(engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
        ax.activity.list(db)
        without = len(sent)
        with engine.begin() as connection:
            connection.execute(update(Activity).values(lock_key="a", run_at=None))
        sent.clear()
        ax.activity.list(db)
    assert len(sent) == without + 1


def test_the_command_shows_the_start_instead_of_waiting_to_start(engine: Engine) -> None:
    now = utc_now()
    task = listed(engine, run_at=now + SOON)
    assert latest_text(task, now) == f"Scheduled for {now + SOON:%H:%M:%S}."
    again = listed(engine, run_at=now + SOON, started_at=now, message="The service is away.")
    assert latest_text(again, now) == "The service is away."
    assert latest_text(listed(engine), now) == "Waiting to start."

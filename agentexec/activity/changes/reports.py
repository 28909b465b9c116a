"""Reports on an activity: `create`, `update`, `complete`, `error`, for sync and async code.

Inside a worker, reports on the running task go to the process's writer without waiting. Elsewhere each is one short
transaction, or part of the application's own with `session=`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session, scoped_session

from agentexec.activity.changes.endings import end_from_outside, select_rows, with_log_line
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.activity.changes.progress import Progress, accepted_reports, write_progress
from agentexec.activity.changes.session import call_after_commit
from agentexec.activity.changes.statements import statements_for
from agentexec.activity.changes.stores import record_store
from agentexec.activity.live.publisher import event_publisher
from agentexec.activity.models import MAX_NAME, Activity
from agentexec.activity.queries.labels import checked_metadata
from agentexec.arguments.checks import check_number, check_text
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.errors import translating_db_errors
from agentexec.db.transactions import reading, writing
from agentexec.errors import ActivityNotFoundError, UsageError
from agentexec.outage import wait_out
from agentexec.redaction import redact
from agentexec.runtime import RUNTIME
from agentexec.task import CURRENT_LEASE, Priority, Status, new_agent_id, parse_agent_id

OwnSession = Session | scoped_session[Session]
"""Session of the application, on the database of the record."""

MAX_MESSAGE = 10_000
"""Maximum characters of a log message; the rest is cut off."""


def create(
    task_name: str,
    message: str | None = None,
    *,
    metadata: dict[str, Any] | None = None,
    session: OwnSession | None = None,
) -> UUID:
    """Add an activity that the application runs by itself.

    It is QUEUED, but no worker picks it up. `update` makes it RUNNING, `complete` or `error` ends it.

    Args:
        task_name: Name under which lists and counts show the activity.
        message: First line of the log; by default AGENTEXEC_ACTIVITY_MESSAGE_CREATE.
        metadata: Labels by which the activity is found.
        session: Session of the application, on the same database. The activity is written in its transaction and exists
            once that is committed.

    Returns:
        The activity's agent_id.

    Raises:
        PayloadTooLargeError: The metadata is above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UsageError: The task name or the metadata is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    agent_id = new_agent_id()
    task = NewTask(
        agent_id=agent_id,
        task_name=check_text("task_name=", task_name, MAX_NAME),
        context=None,
        queue=None,
        priority=Priority.LOW,
        run_at=None,
        metadata=checked_metadata(metadata),
        idempotency_key=None,
        message=clean(message) if message is not None else CONF.activity_message_create,
    )
    if session is None:
        wait_out(_insert, task, itertools.count())
    else:
        with translating_db_errors(RUNTIME.engine):
            insert_tasks(_connection(session), [task], utc_now())
    return agent_id


def update(
    agent_id: UUID | str,
    message: str,
    percentage: int | None = None,
    *,
    session: OwnSession | None = None,
) -> None:
    """Report progress: add a line to the log, and set the percentage.

    It has no effect on an activity that has ended, or whose task another worker has taken over.

    Args:
        agent_id: The activity's id.
        message: Line for the log; the characters beyond 10,000 are cut off.
        percentage: Progress from 0 to 100, the limits for numbers beyond them; None leaves it as it is.
        session: Session of the application, on the same database: the report is part of its transaction.

    Raises:
        UsageError: `agent_id` is not an agent_id, or the percentage is not a number.
        ActivityNotFoundError: There is no such activity. Not raised inside the task's own worker.
        UnavailableError: The database cannot be reached. Not raised inside the task's own worker.
    """
    key = parse_agent_id(agent_id)
    if percentage is not None:
        percentage = max(0, min(100, int(check_number("percentage=", percentage))))
    writer, lease = RUNTIME.progress_writer, CURRENT_LEASE.get()
    # A handler that has lost its task keeps its old epoch, so its reports are refused.
    epoch = lease.epoch if lease is not None and lease.agent_id == key else None
    if session is not None:
        _report_within(session, Progress(key, epoch, clean(message), percentage, utc_now()))
        return
    if writer is not None and (epoch is not None or writer.holds(key)):
        writer.report_progress(key, epoch, clean(message), percentage)
        return
    report = Progress(key, None, clean(message), percentage, utc_now())
    wait_out(_write_report, report, itertools.count())
    event_publisher().notify_log_changed([key])


def complete(agent_id: UUID | str, message: str | None = None, *, session: OwnSession | None = None) -> None:
    """End an activity as COMPLETE. It has no effect on an activity that has ended.

    Args:
        agent_id: The activity's id.
        message: Last line of the log; by default AGENTEXEC_ACTIVITY_MESSAGE_COMPLETE.
        session: Session of the application, on the same database: the end is part of its transaction.

    Raises:
        ActivityNotFoundError: There is no such activity.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    text = message if message is not None else CONF.activity_message_complete
    _end(parse_agent_id(agent_id), Status.COMPLETE, text, None, session)


def error(agent_id: UUID | str, error: str = "", *, session: OwnSession | None = None) -> None:
    """End an activity as ERROR. It has no effect on an activity that has ended.

    Args:
        agent_id: The activity's id.
        error: Reason for the failure. Secrets in it are replaced.
        session: Session of the application, on the same database: the end is part of its transaction.

    Raises:
        ActivityNotFoundError: There is no such activity.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    error = redact(str(error), CONF.secrets)
    text = CONF.activity_message_error.format(error=error)
    _end(parse_agent_id(agent_id), Status.ERROR, text, error, session)


def _insert(task: NewTask, tries: Iterator[int]) -> None:
    """Add an activity. `tries` counts the calls: an earlier one may have added it, if its commit was not confirmed."""
    if next(tries):
        with reading(RUNTIME.engine) as connection:
            if connection.scalar(select(Activity.agent_id).where(Activity.agent_id == task.agent_id)):
                return
    record_store().insert([task], utc_now())


def _write_report(report: Progress, tries: Iterator[int]) -> None:
    """Write a report; `tries` as for `_insert`. Raises ActivityNotFoundError."""
    if next(tries):
        with reading(RUNTIME.engine) as connection:
            if with_log_line(connection, [report.agent_id], report.message, report.at):
                return
    if record_store().record([report], [], now=report.at, result_ttl=0).unknown:
        raise ActivityNotFoundError(report.agent_id)


def clean(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return a text that every database can store: at most `limit` characters, without NUL and lone surrogates."""
    text = str(text)
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return text.replace("\x00", "�").encode("utf-8", "replace").decode("utf-8")


def _connection(session: OwnSession) -> Connection:
    """Return the connection of the transaction that a session has open."""
    if not isinstance(session, Session | scoped_session):
        raise UsageError(
            f"session= takes a Session, not {type(session).__name__}. With an AsyncSession, call "
            "`await db.run_sync(lambda session: ax.activity.update(agent_id, message, session=session))`."
        )
    return session.connection()


def _report_within(session: OwnSession, report: Progress) -> None:
    with translating_db_errors(RUNTIME.engine):
        connection = _connection(session)
        found = select_rows(connection, statements_for(connection).select_state, [report.agent_id])
        rows = {row.agent_id: row for row in found}
        if not rows:
            raise ActivityNotFoundError(report.agent_id)
        write_progress(connection, accepted_reports([report], rows), rows)
    _notify_after_commit(session, report.agent_id)


def _notify_after_commit(session: OwnSession, key: UUID) -> None:
    # A listener on a scoped session would listen on every session that its factory makes.
    own = session() if isinstance(session, scoped_session) else session
    call_after_commit(own, lambda: event_publisher().notify_log_changed([key]))


def _end(key: UUID, status: Status, message: str, reason: str | None, session: OwnSession | None) -> None:
    writer = RUNTIME.progress_writer
    if writer is not None:
        writer.flush(5.0)
    event_publisher().flush([key])
    if session is None:
        wait_out(_end_now, key, status, message, reason)
        event_publisher().notify_log_changed([key])
        return
    with translating_db_errors(RUNTIME.engine):
        _end_within(_connection(session), key, status, message, reason)
    _notify_after_commit(session, key)


def _end_now(key: UUID, status: Status, message: str, reason: str | None) -> None:
    with writing(RUNTIME.engine) as connection:
        _end_within(connection, key, status, message, reason)


def _end_within(connection: Connection, key: UUID, status: Status, message: str, reason: str | None) -> None:
    ended = end_from_outside(
        connection,
        [key],
        status=status,
        message=clean(message),
        error=clean(reason) if reason is not None else None,
        now=utc_now(),
    )
    if not ended and connection.scalar(select(Activity.agent_id).where(Activity.agent_id == key)) is None:
        raise ActivityNotFoundError(key)

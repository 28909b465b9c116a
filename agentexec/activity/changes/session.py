"""Calls that wait for the commit of an application's session."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from agentexec.runtime import RUNTIME

log = logging.getLogger("agentexec.queue")

CALLS = "agentexec_pushes"
"""Key in a session's `info` of the calls that wait for its commit."""


def call_after_commit(session: Session, call: Callable[[], object]) -> None:
    """Run `call` in a thread once the outermost transaction of a session has committed, and never if it is rolled back.

    After a rollback to a savepoint the call still runs, so it must do no harm. A push of a task without a record is
    harmless: workers drop it.
    """
    if CALLS not in session.info:
        event.listen(session, "after_commit", _run_calls)
        event.listen(session, "after_soft_rollback", _drop_calls)
    session.info.setdefault(CALLS, []).append(call)


def _run_calls(session: Session) -> None:
    if session.in_nested_transaction():
        return
    calls, session.info[CALLS] = session.info[CALLS], []
    if calls:
        # In a thread, because the commit of an AsyncSession runs on the event loop. In one thread, to keep their order.
        # It may fail while the interpreter shuts down.
        with RUNTIME.best_effort(
            log, "%d change(s) of the queue are made up for by the reconciler.", len(calls)
        ):
            RUNTIME.submit(lambda: [call() for call in calls])


def _drop_calls(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[CALLS] = []

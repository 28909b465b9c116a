"""Messages in one round trip each, on PostgreSQL. The statements restate in SQL what `messages.py` does."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine

from agentexec.db.round_trips import can_batch, run_in_one_round_trip
from agentexec.state.messages import DONE, format_message
from agentexec.state.sql_backend.dialects import dialect_of
from agentexec.state.sql_backend.wakeup import PostgresWakeup, Wakeup, mail
from agentexec.state.sql_models import Message, Watch


class PostgresMessages:
    """Mailboxes on an engine of PostgreSQL whose driver can pipeline."""

    def __init__(self, engine: Engine, wakeup: PostgresWakeup) -> None:
        self._engine = engine
        self._wakeup = wakeup
        messages, watches, now = Message.__tablename__, Watch.__tablename__, dialect_of(engine).now
        self._receive = f"DELETE FROM {messages} WHERE mailbox = %(mailbox)s RETURNING id, text"
        # Notified in the same transaction: its commit, which holds a lock of the whole server, does not wait for the disk.
        self._notify_done = f"""
WITH told AS (
    DELETE FROM {watches} WHERE agent_id = ANY(%(ids)s::uuid[]) RETURNING agent_id, mailbox
), sent AS (
    INSERT INTO {messages} (mailbox, text, sent_at)
    SELECT mailbox, %(message)s || agent_id, {now} FROM told RETURNING mailbox
)
SELECT mailbox, pg_notify(%(channel)s, %(mail)s || mailbox) FROM sent GROUP BY mailbox
"""

    def receive(self, mailbox: str) -> list[str]:
        """Take the messages out of a mailbox, in order."""
        rows = run_in_one_round_trip(self._engine, self._receive, {"mailbox": mailbox}, relaxed=True)
        return [text for _, text in sorted(rows)]

    def notify_done(self, agent_ids: Sequence[UUID]) -> None:
        """Tell the mailboxes that watch tasks that these are done."""
        values = {
            "ids": agent_ids,
            "message": format_message(DONE, ""),
            "channel": self._wakeup.channel,
            "mail": mail(""),
        }
        rows = run_in_one_round_trip(self._engine, self._notify_done, values, relaxed=True)
        self._wakeup.note_changes([mail(mailbox) for mailbox, _ in rows])


def quick_messages(engine: Engine, wakeup: Wakeup) -> PostgresMessages | None:
    """Return the messages of an engine, None where the database or its driver needs several round trips."""
    if isinstance(wakeup, PostgresWakeup) and can_batch(engine.dialect):
        return PostgresMessages(engine, wakeup)
    return None

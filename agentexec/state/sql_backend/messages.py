"""Short-lived events on the SQL backend: a table that is swept by age, and mailboxes that follow tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, Uuid, bindparam, text

from agentexec.db.transactions import reading, writing
from agentexec.state.backend import EVENT_TTL_SECONDS, EVENTS_KEPT, FOLLOW_TTL_SECONDS, Event
from agentexec.state.messages import EVENTS, format_message
from agentexec.state.sql_backend.wakeup import make_wakeup
from agentexec.state.sql_models import CHUNK_SIZE, MICROS_PER_SECOND, NOW_SQL, EventRow, Follow, Message

T = TypeVar("T")

TRIM_EVERY = 100
"""Events of a task between two looks for those that are too many."""


class _Statements:
    """The SQL of one dialect."""

    def __init__(self, dialect: str) -> None:
        family = "mysql" if dialect == "mariadb" else dialect
        now = NOW_SQL.get(family, NOW_SQL["postgresql"])
        e, f, m = (model.__tablename__ for model in (EventRow, Follow, Message))
        insert, ignore = ("INSERT IGNORE", "") if family == "mysql" else ("INSERT", " ON CONFLICT DO NOTHING")
        ids = bindparam("ids", expanding=True, type_=Uuid())
        one = bindparam("id", type_=Uuid())

        self.last = (
            text(f"SELECT agent_id, MAX(number) AS last FROM {e} WHERE agent_id IN :ids GROUP BY agent_id")
            .bindparams(ids)
            .columns(agent_id=Uuid())
        )
        self.append = text(
            f"{insert} INTO {e} (agent_id, number, text, at) VALUES (:id, :number, :text, {now}){ignore}"
        ).bindparams(one)
        self.trim = text(f"DELETE FROM {e} WHERE agent_id = :id AND number <= :oldest").bindparams(one)
        self.read = text(
            f"SELECT number, text FROM {e} WHERE agent_id = :id AND number > :after ORDER BY number"
        ).bindparams(one)
        self.follow = text(
            f"{insert} INTO {f} (agent_id, mailbox, lapses_at) VALUES (:id, :mailbox, {now} + :seconds){ignore}"
        ).bindparams(one)
        self.refollow = text(
            f"UPDATE {f} SET lapses_at = {now} + :seconds WHERE mailbox = :mailbox AND agent_id IN :ids"
        ).bindparams(ids)
        self.anybody = text(f"SELECT 1 FROM {f} LIMIT 1")
        self.followers = (
            text(f"SELECT agent_id, mailbox FROM {f} WHERE agent_id IN :ids AND lapses_at > {now}")
            .bindparams(ids)
            .columns(agent_id=Uuid())
        )
        self.send = text(f"INSERT INTO {m} (mailbox, text, sent_at) VALUES (:mailbox, :text, {now})")
        self.sweep = (
            text(f"DELETE FROM {e} WHERE at < {now} - {EVENT_TTL_SECONDS * MICROS_PER_SECOND}"),
            text(f"DELETE FROM {f} WHERE lapses_at < {now}"),
        )


class SqlEvents:
    """The part of the SQL backend that keeps events and their followers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._wakeup = make_wakeup(engine)
        self._event_sql = _Statements(engine.dialect.name)

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        told = False
        for chunk in chunks([agent_id for agent_id, texts in events.items() if texts]):
            with writing(self._engine, relaxed=True) as connection:
                self._append(connection, {agent_id: events[agent_id] for agent_id in chunk})
                rows = connection.execute(self._event_sql.followers, self._now(ids=chunk)).all()
                if rows:
                    told = True
                    messages = [
                        self._now(mailbox=row.mailbox, text=format_message(EVENTS, row.agent_id))
                        for row in rows
                    ]
                    connection.execute(self._event_sql.send, messages)
        if told:
            self._wakeup.announce()

    def _append(self, connection: Connection, events: Mapping[UUID, Sequence[str]]) -> None:
        last = {
            row.agent_id: row.last for row in connection.execute(self._event_sql.last, {"ids": list(events)})
        }
        rows: list[dict[str, Any]] = []
        too_old: list[dict[str, Any]] = []
        for agent_id, texts in events.items():
            # By the clock at first, so that events that begin anew go on above those that are gone.
            before = last.get(agent_id) or time.time_ns() // 1000
            rows += (
                self._now(id=agent_id, number=before + place, text=one) for place, one in enumerate(texts, 1)
            )
            after = before + len(texts)
            if before // TRIM_EVERY != after // TRIM_EVERY:
                too_old.append({"id": agent_id, "oldest": after - EVENTS_KEPT - TRIM_EVERY})
        connection.execute(self._event_sql.append, rows)
        if too_old:
            connection.execute(self._event_sql.trim, too_old)

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        found: dict[UUID, list[Event]] = {}
        with reading(self._engine) as connection:
            for agent_id, number in after.items():
                rows = connection.execute(self._event_sql.read, {"id": agent_id, "after": number}).all()
                if rows:
                    found[agent_id] = [Event(row.number, row.text) for row in rows]
        return found

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        seconds = FOLLOW_TTL_SECONDS * MICROS_PER_SECOND
        for chunk in chunks(sorted(agent_ids)):
            rows = [self._now(id=agent_id, mailbox=mailbox, seconds=seconds) for agent_id in chunk]
            with writing(self._engine, relaxed=True) as connection:
                connection.execute(
                    self._event_sql.refollow, self._now(ids=chunk, mailbox=mailbox, seconds=seconds)
                )
                connection.execute(self._event_sql.follow, rows)

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        found: set[UUID] = set()
        with reading(self._engine) as connection:
            # Most of the time nobody follows anything.
            if connection.execute(self._event_sql.anybody).first() is not None:
                for chunk in chunks(agent_ids):
                    rows = connection.execute(self._event_sql.followers, self._now(ids=chunk))
                    found.update(row.agent_id for row in rows)
        return found

    def _sweep_events(self, connection: Connection) -> None:
        """Remove what has expired."""
        for statement in self._event_sql.sweep:
            connection.execute(statement, self._now())

    def _now(self, **values: Any) -> dict[str, Any]:
        """Parameters, with the clock where the statement does not read the database's own."""
        if self._sqlite:
            values["now"] = time.time_ns() // 1000
        return values


def chunks(items: Sequence[T]) -> list[list[T]]:
    """Parts that one statement takes."""
    return [list(items[start : start + CHUNK_SIZE]) for start in range(0, len(items), CHUNK_SIZE)]

"""Mailboxes and live events on the SQL backend: tables that are swept by age."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from agentexec.db.chunks import chunks
from agentexec.db.transactions import inserting, looking_up, reading, writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.state.backend import EVENTS_KEPT, FOLLOW_TTL_SECONDS, WATCH_TTL_SECONDS, Event
from agentexec.state.messages import DONE, EVENTS, format_message
from agentexec.state.sql_backend.dialects import dialect_of
from agentexec.state.sql_backend.polled_wakeup import make_wakeup
from agentexec.state.sql_backend.postgres_messages import quick_messages
from agentexec.state.sql_backend.statements import MessageStatements
from agentexec.state.sql_backend.wakeup import mail

TRIM_INTERVAL = 100
"""Events of a task between two removals of its oldest ones."""

SWEEP_SECONDS = 30.0
"""Seconds between two removals of expired rows by one process."""


class SqlMessages:
    """Part of the SQL backend that carries messages and events."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wakeup = make_wakeup(engine)
        self._dialect = dialect_of(engine)
        self._params = self._dialect.params
        self._messages = MessageStatements(self._dialect)
        self._quick = quick_messages(engine, self._wakeup)
        self._next_sweep = 0.0
        self._received: dict[str, list[int]] = {}
        """Numbers of the messages of a mailbox that were returned, and are still there."""
        self._told: dict[UUID, list[str]] = {}
        """Mailboxes that a transaction has told about tasks, for which `notify_done` follows."""

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        seconds = WATCH_TTL_SECONDS * MICROS_PER_SECOND
        for chunk in chunks(agent_ids):
            rows = [self._params(id=agent_id, mailbox=mailbox, seconds=seconds) for agent_id in chunk]
            known = self._params(ids=chunk, mailbox=mailbox, seconds=seconds)
            with inserting(self._engine, relaxed=True, by_key_only=True) as connection:
                connection.execute(self._messages.extend_watches, known)
                connection.execute(self._messages.watch, rows[0] if len(rows) == 1 else rows)

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        if self._quick is not None:
            for chunk in chunks(agent_ids):
                self._quick.notify_done(chunk)
            return
        mailboxes = {mailbox for agent_id in agent_ids for mailbox in self._told.get(agent_id, ())}
        for chunk in chunks([agent_id for agent_id in agent_ids if self._told.pop(agent_id, None) is None]):
            with looking_up(self._engine) as connection:
                # Nobody waits for most tasks: those need no transaction.
                rows = connection.execute(self._messages.watchers, {"ids": chunk}).all()
            if rows:
                mailboxes.update(row.mailbox for row in rows)
                with inserting(self._engine, relaxed=True, by_key_only=True) as connection:
                    self._tell(connection, rows)
        self._announce(mailboxes)

    def tell_within(self, transaction: Connection, agent_ids: Sequence[UUID]) -> None:
        """Tell those who wait for tasks that these are done, with the commit of a transaction; then call `notify_done`."""
        for chunk in chunks(agent_ids):
            self._told.update((agent_id, []) for agent_id in chunk)
            rows = transaction.execute(self._messages.watchers, {"ids": chunk}).all()
            if rows:
                self._tell(transaction, rows)
            for row in rows:
                self._told[row.agent_id].append(row.mailbox)

    def _tell(self, connection: Connection, rows: Sequence[Any]) -> None:
        connection.execute(self._messages.unwatch, {"ids": [row.agent_id for row in rows]})
        self._send(connection, [(row.mailbox, format_message(DONE, row.agent_id)) for row in rows])

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        if not messages:
            return
        with inserting(self._engine, relaxed=True) as connection:
            self._send(connection, [(mailbox, message) for message in messages])
        self._announce([mailbox])

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        deadline = time.monotonic() + timeout
        while True:
            mark = self._wakeup.mark(mail(mailbox))
            if found := self._take_messages(mailbox):
                return found
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            self._wakeup.wait(mark, remaining, mail(mailbox))

    def _take_messages(self, mailbox: str) -> list[str]:
        """Return the messages of a mailbox, in order. They are removed by the next call: somebody waits for what they say."""
        if self._quick is not None:
            return self._quick.receive(mailbox)
        if mailbox in self._received:
            with inserting(self._engine, relaxed=True, by_key_only=True) as connection:
                for chunk in chunks(self._received[mailbox]):
                    connection.execute(self._messages.delete, {"ids": chunk})
            del self._received[mailbox]
        with looking_up(self._engine) as connection:
            # Mostly there are none: reading needs no lock.
            rows = connection.execute(self._messages.read, {"mailbox": mailbox}).all()
        if rows:
            self._received[mailbox] = [row.id for row in rows]
        return [row.text for row in rows]

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        mailboxes: set[str] = set()
        for chunk in chunks([agent_id for agent_id, texts in events.items() if texts]):
            with writing(self._engine, relaxed=True) as connection:
                self._append(connection, {agent_id: events[agent_id] for agent_id in chunk})
                rows = connection.execute(self._messages.followers, self._params(ids=chunk)).all()
                if rows:
                    mailboxes.update(row.mailbox for row in rows)
                    self._send(
                        connection, [(row.mailbox, format_message(EVENTS, row.agent_id)) for row in rows]
                    )
        self._announce(mailboxes)

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        found: dict[UUID, list[Event]] = {}
        with reading(self._engine) as connection:
            for agent_id, number in after.items():
                values = {"id": agent_id, "after": number}
                rows = connection.execute(self._messages.read_events, values).all()
                if rows:
                    found[agent_id] = [Event(row.number, row.text) for row in rows]
        return found

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        seconds = FOLLOW_TTL_SECONDS * MICROS_PER_SECOND
        # Sorted, so concurrent calls insert the same rows in the same order and do not deadlock.
        for chunk in chunks(sorted(agent_ids)):
            rows = [self._params(id=agent_id, mailbox=mailbox, seconds=seconds) for agent_id in chunk]
            known = self._params(ids=chunk, mailbox=mailbox, seconds=seconds)
            with writing(self._engine, relaxed=True) as connection:
                connection.execute(self._messages.extend_follows, known)
                connection.execute(self._messages.follow, rows)

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        found: set[UUID] = set()
        with looking_up(self._engine) as connection:
            # Most of the time nobody follows any task.
            if connection.execute(self._messages.any_follower).first() is not None:
                for chunk in chunks(agent_ids):
                    rows = connection.execute(self._messages.followers, self._params(ids=chunk))
                    found.update(row.agent_id for row in rows)
        return found

    def _announce(self, mailboxes: Collection[str]) -> None:
        """Wake those who wait for messages of some mailboxes."""
        if mailboxes:
            self._wakeup.announce(*map(mail, mailboxes))

    def _send(self, connection: Connection, messages: Sequence[tuple[str, str]]) -> None:
        """Put messages into mailboxes, each given as mailbox and text."""
        rows = [self._params(mailbox=mailbox, text=message) for mailbox, message in messages]
        # A single one alone: the driver's `executemany` takes more round trips.
        connection.execute(self._messages.send, rows[0] if len(rows) == 1 else rows)

    def _append(self, connection: Connection, events: Mapping[UUID, Sequence[str]]) -> None:
        known = connection.execute(self._messages.last_events, {"ids": list(events)})
        last = {row.agent_id: row.last for row in known}
        rows: list[dict[str, Any]] = []
        too_old: list[dict[str, Any]] = []
        for agent_id, texts in events.items():
            # The first number comes from the clock, so new events continue above the numbers of expired ones.
            clock = time.time_ns() // 1000
            before = last.get(agent_id) or clock
            if type(before) is not int or not 0 < before <= 2 * clock:
                # Not our number: events after it would have numbers that no column holds.
                connection.execute(self._messages.drop_forged_events, {"id": agent_id, "newest": clock})
                before = clock
            rows += (
                self._params(id=agent_id, number=before + place, text=event)
                for place, event in enumerate(texts, 1)
            )
            after = before + len(texts)
            if before // TRIM_INTERVAL != after // TRIM_INTERVAL:
                too_old.append({"id": agent_id, "oldest": after - EVENTS_KEPT - TRIM_INTERVAL})
        connection.execute(self._messages.append_event, rows)
        if too_old:
            connection.execute(self._messages.trim_events, too_old)

    def _sweep(self) -> None:
        """Delete expired rows, if it is time to."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + SWEEP_SECONDS
        with writing(self._engine, relaxed=True) as connection:
            for statement in self._messages.sweep:
                connection.execute(statement, self._params())

"""The conformance suite of the stores: the faster ways of a database leave the rows of the general way.

A scenario calls the stores and returns what they answered. `assert_same` runs it with the general stores on SQLite, with
the general stores on another database, and with the stores that are chosen for that database, and compares the answers
and every row of the record and the journal.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, delete, select, text

import agentexec as ax
from agentexec.activity.changes.admissions import Admissions, StartTerms
from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.changes.store import RecordStore
from agentexec.activity.changes.stores import open_record_store
from agentexec.activity.changes.versions import NO_VERSIONS, Versions
from agentexec.activity.models import Activity, ActivityLabel, ActivityLog, ActivityResult, FollowUp
from agentexec.arguments.encryption_keys import fingerprint
from agentexec.db.engine import open_engine
from agentexec.journal.models import JournalEntry
from agentexec.journal.store import JournalStore
from agentexec.journal.stores import open_journal_store
from agentexec.payloads.rotation import encrypted_columns
from agentexec.payloads.sealing import prefix_of
from agentexec.task import Lease, Priority

START = datetime(2030, 1, 1, tzinfo=UTC)
QUEUE = "suite"
MAX_CRASHES = 3
KEY = base64.urlsafe_b64encode(bytes(32)).decode()
"""A key that encrypts stored values."""

TABLES: Sequence[Any] = (Activity, ActivityLog, ActivityLabel, ActivityResult, FollowUp, JournalEntry)


class Stores(NamedTuple):
    """Both stores of one database."""

    engine: Engine
    record: RecordStore
    journal: JournalStore

    def claim(
        self,
        leases: Sequence[Lease],
        now: datetime,
        *,
        suspect_running: bool = False,
        task_names: Sequence[str] | None = None,
        queue: str | None = QUEUE,
        versions: Versions = NO_VERSIONS,
    ) -> Admissions:
        """Start claimed tasks as a worker does: first those that need no decision, then the others."""
        terms = StartTerms(
            now, "Started.", MAX_CRASHES, task_names=task_names, queue=queue, versions=versions
        )
        started = self.record.start_fresh(leases, terms)
        fresh = {admitted.lease for admitted in started}
        others = [lease for lease in leases if lease not in fresh]
        admissions = self.record.admit(others, terms, suspect_running=suspect_running or bool(started))
        admissions.started = sorted([*started, *admissions.started])
        return admissions


Scenario = Callable[[Stores], object]


def assert_same(scenario: Scenario, url: str, reference_url: str) -> None:
    """Fail unless every store gives the same answers and leaves the same rows."""
    reference = _run(scenario, reference_url, _general)
    assert reference[1][0][1], "the scenario leaves no activity"
    assert _run(scenario, url, _general) == reference, "the general stores on another database"
    assert _run(scenario, url, _chosen) == reference, "the stores chosen for a database"
    with encryption():
        assert _run(scenario, url, _chosen)[1] == reference[1], "the same with keys"
        assert unsealed_values(url) == [], "values that are written without the function seal"


@contextmanager
def encryption(keys: str = KEY) -> Generator[None]:
    """Encrypt the values that are stored."""
    before = ax.CONF.encryption_keys
    ax.CONF.encryption_keys = keys
    try:
        yield
    finally:
        ax.CONF.encryption_keys = before


def stored_values(engine: Engine) -> dict[str, list[str]]:
    """Every value of each encrypted column, as the database has it."""
    with engine.connect() as connection:
        return {
            str(column): list(
                connection.scalars(
                    text(f"SELECT {column.name} FROM {column.table.name} WHERE {column.name} IS NOT NULL")
                )
            )
            for column in encrypted_columns(ax.Base.metadata)
        }


def unsealed_values(url: str, key: str = KEY) -> list[str]:
    """The stored values that the key has not encrypted."""
    engine = open_engine(url)
    try:
        prefix = prefix_of(fingerprint(key))
        return [
            value
            for values in stored_values(engine).values()
            for value in values
            if not value.startswith(prefix)
        ]
    finally:
        engine.dispose()


def _general(engine: Engine) -> Stores:
    return Stores(engine, RecordStore(engine), JournalStore(engine))


def _chosen(engine: Engine) -> Stores:
    return Stores(engine, open_record_store(engine), open_journal_store(engine))


def _run(scenario: Scenario, url: str, open_stores: Callable[[Engine], Stores]) -> tuple[object, list[Any]]:
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            for table in reversed(ax.Base.metadata.sorted_tables):
                connection.execute(delete(table))
        answers = scenario(open_stores(engine))
        return answers, rows_of(engine)
    finally:
        engine.dispose()


def rows_of(engine: Engine) -> list[Any]:
    """Every row of each table, without the numbers of log lines, which are only ordered within a task."""
    found = []
    with engine.connect() as connection:
        for model in TABLES:
            table = model.__table__
            columns = [column for column in table.c if column.name != "id"]
            key = list(table.primary_key)
            if model is ActivityLog:
                key = [table.c.activity_id, table.c.id]
            elif model is FollowUp:
                key = [table.c.agent_id]
            query = select(*columns).order_by(*key)
            found.append((table.name, [dict(row._mapping) for row in connection.execute(query)]))
    return found


def at(seconds: float) -> datetime:
    """A moment of a scenario."""
    return START + timedelta(seconds=seconds)


def new_task(number: int, **changes: Any) -> NewTask:
    """A task with an id by which it is found."""
    task = NewTask(task_id(number), "work", '{"n": 1}', QUEUE, Priority.LOW, None, None, None, "Queued.")
    return task._replace(**changes)


def task_id(number: int) -> UUID:
    """The id of a scenario's task."""
    return UUID(int=number + 1)


def lease(number: int, epoch: int = 1) -> Lease:
    """A lease on a scenario's task."""
    return Lease(task_id(number), epoch)


def set_row(stores: Stores, number: int, **values: Any) -> None:
    """Write values straight into an activity's row."""
    table: Any = Activity.__table__
    with stores.engine.begin() as connection:
        connection.execute(table.update().where(table.c.agent_id == task_id(number)).values(**values))


def queued(stores: Stores, *numbers: int) -> None:
    """Add tasks."""
    stores.record.insert([new_task(number) for number in numbers], at(0))


def running(stores: Stores, *numbers: int) -> None:
    """Add tasks that run under epoch 1."""
    queued(stores, *numbers)
    assert len(stores.claim([lease(number) for number in numbers], at(1)).started) == len(numbers)

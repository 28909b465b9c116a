"""Sample record: many activities with their logs, loaded straight into the tables. A million take a few minutes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Connection,
    Engine,
    Index,
    Table,
    create_engine,
    insert,
    literal,
    select,
    text,
    true,
    union_all,
)

from agentexec.activity.models import Activity, ActivityLabel, ActivityLog
from agentexec.activity.queries.labels import label_rows
from agentexec.db.clock import utc_now
from agentexec.task import Status

TYPES = 20
TENANTS = 100
BATCH = 5_000
MANY = 50_000
"""Number of activities from which indexes are made at the end."""

DAYS = 90
HOUR = 3600

COMPANIES = ("Acme", "Globex", "Initech", "Umbrella", "Stark", "Wayne", "Wonka", "Tyrell")


class Shape(NamedTuple):
    """Shares of kinds of activities. Of those that ended, one in fifty failed and one in a hundred was canceled."""

    running: float = 0.0002
    queued: float = 0.005
    delayed: float = 0.0
    """Share of the queued ones that may not start yet."""
    recent: float = 0.0
    """Share of those that ended within the last hour."""
    queues: int = 1
    details: bool = False
    """Failed ones have a traceback, and ended ones the usage of a model."""


CALM = Shape()
BUSY = Shape(queued=0.1, delayed=0.3, recent=0.1, queues=5, details=True)
"""A deployment in trouble: a tenth is queued, and a tenth ended within the last hour."""


def fill(engine: Engine, activities: int, logs_each: int, *, seed: int = 1, shape: Shape = CALM) -> None:
    """Add activities over 90 days, each with a few log lines, and have the database analyze the tables."""
    rows = _rows(activities, random.Random(seed), shape)
    is_mysql = engine.dialect.name in ("mysql", "mariadb")
    loader = create_engine(engine.url.update_query_dict({"local_infile": "1"})) if is_mysql else engine
    with loader.connect() as connection:
        if is_mysql:
            # The loaded rows are known to be consistent, and checking them takes most of the time.
            connection.execute(text("SET SESSION foreign_key_checks = 0, unique_checks = 0"))
        # Made at the end, indexes cost a fraction of what they cost row by row.
        indexes = [] if is_mysql or activities < MANY else _drop_indexes(connection)
        while batch := list(islice(rows, BATCH)):
            labels = [
                {"agent_id": row["agent_id"], "name": name, "value": value, "created_at": row["created_at"]}
                for row in batch
                for name, value in label_rows(row["metadata"])
            ]
            _load(connection, Activity.__table__, batch)
            _load(connection, ActivityLabel.__table__, labels)
            connection.commit()
        _add_logs(connection, logs_each)
        for index in indexes:
            index.create(connection)
        connection.commit()
    if is_mysql:
        loader.dispose()
    analyze(engine)


def _drop_indexes(connection: Connection) -> list[Index]:
    """Drop the indexes that fill slowly, and return them."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA synchronous = OFF"))
    tables: list[Any] = [Activity.__table__, ActivityLabel.__table__, ActivityLog.__table__]
    indexes = [index for table in tables for index in table.indexes]
    for index in indexes:
        index.drop(connection)
    connection.commit()
    return indexes


def _load(connection: Connection, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows in the way that is fastest on each database."""
    if connection.dialect.name == "postgresql":
        names, values = _processed(connection, table, rows)
        cursor: Any = connection.connection.cursor()
        with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
            for row in values:
                copy.write_row(row)
    elif connection.dialect.name in ("mysql", "mariadb"):
        names, values = _processed(connection, table, rows)
        _load_file(connection, table, names, values)
    else:
        names, values = _processed(connection, table, rows)
        marks = ", ".join("?" * len(rows[0]))
        connection.connection.cursor().executemany(
            f"INSERT INTO {table.name} ({names}) VALUES ({marks})", values
        )


def _processed(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]]
) -> tuple[str, Iterator[list[Any]]]:
    """Return the columns of the rows, and their values in the form that the driver takes."""
    dialect = connection.dialect
    columns = [table.c[name] for name in rows[0]]
    processors = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]
    quoted = ", ".join(dialect.identifier_preparer.quote(column.name) for column in columns)
    return quoted, (
        [
            value if process is None else process(value)
            for process, value in zip(processors, row.values(), strict=True)
        ]
        for row in rows
    )


def _load_file(connection: Connection, table: Table, names: str, rows: Iterator[list[Any]]) -> None:
    """Load rows from a file, which MySQL reads several times as fast as statements."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="agentexec-bench-") as file:
        file.writelines("\t".join(map(_escaped, row)) + "\n" for row in rows)
        file.flush()
        into = f"INTO TABLE {table.name} CHARACTER SET utf8mb4 ({names})"
        connection.exec_driver_sql(f"LOAD DATA LOCAL INFILE '{file.name}' {into}")


def _escaped(value: Any) -> str:
    if value is None:
        return "\\N"
    return str(value).replace("\\", "\\\\").replace("\t", "\\\t").replace("\n", "\\\n")


def analyze(engine: Engine) -> None:
    """Update the statistics of the query planner, as the database itself does sooner or later."""
    names = [model.__tablename__ for model in (Activity, ActivityLabel, ActivityLog)]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            if engine.dialect.name == "sqlite":
                connection.execute(text(f"ANALYZE {name}"))
            elif engine.dialect.name == "postgresql":
                connection.execute(text(f"VACUUM ANALYZE {name}"))
            else:
                connection.execute(text(f"ANALYZE TABLE {name}")).all()


def _rows(number: int, chance: random.Random, shape: Shape) -> Iterator[dict[str, Any]]:
    now = utc_now()
    for at in range(number):
        created, status, finished = _fate(at / number, now, chance.random(), shape)
        # Skewed, as tenants are: the first has by far the most activities, the last hardly any.
        tenant = min(TENANTS - 1, int(chance.paretovariate(0.3)) - 1)
        row = {
            "agent_id": _agent_id(created, chance),
            "agent_type": f"task_{at % TYPES}",
            "status": status,
            "percentage": 100 if status is Status.COMPLETE else at % 100,
            "message": f"Step {at % 10} of 10 for {COMPANIES[at % len(COMPANIES)]} {at}",
            "created_at": created,
            "updated_at": created + timedelta(seconds=60),
            "started_at": None if status is Status.QUEUED else _later(created, 1),
            "finished_at": finished,
            "queue": _queue(chance, shape),
            "run_at": None,
            "priority": 0,
            "epoch": 1,
            "attempt": 1,
            "crashes": 0,
            "crashes_in_row": 0,
            "context": f'{{"company": "{COMPANIES[at % len(COMPANIES)]} {at}", "text": "{"x" * 200}"}}',
            "metadata": {"tenant": f"t{tenant}", "user": f"u{at % 200}"},
        }
        if status is Status.QUEUED and chance.random() < shape.delayed:
            row["run_at"] = _later(now, HOUR * (1 + 100 * chance.random()))
        yield {**row, **_details(at, status)} if shape.details else row


def _fate(place: float, now: datetime, draw: float, shape: Shape) -> tuple[datetime, Status, datetime | None]:
    """Return when an activity was created, its status, and when it ended. `place` is its place in the order of time."""
    ended = 1 - shape.running - shape.queued
    old = ended - shape.recent
    if place >= ended and not shape.recent:
        created = now - timedelta(days=DAYS) * (1 - place)
    elif place >= ended:
        created = now - timedelta(seconds=HOUR) * (1 - place) / (1 - ended)
    elif place >= old:
        created = now - timedelta(seconds=2 * HOUR) + timedelta(seconds=HOUR) * (place - old) / shape.recent
    else:
        created = now - timedelta(days=DAYS) * (1 - place)
    if place >= ended:
        return created, Status.RUNNING if place >= 1 - shape.running else Status.QUEUED, None
    status = Status.ERROR if draw < 0.02 else Status.CANCELED if draw < 0.03 else Status.COMPLETE
    return created, status, _later(created, HOUR + 1 if place >= old else 60)


def _queue(chance: random.Random, shape: Shape) -> str:
    # The first queue has half of the tasks, the second a quarter, and so on.
    number = min(shape.queues, int(chance.expovariate(0.7)) + 1) if shape.queues > 1 else 1
    return "agentexec_tasks" if number == 1 else f"queue_{number}"


def _details(at: int, status: Status) -> dict[str, Any]:
    """Return the columns that only ended activities have: all of them, as the rows are loaded together."""
    tokens = {"requests": 3, "input_tokens": 900 + at % 100, "cached_tokens": 100, "output_tokens": 200}
    used = dict(tokens) if status is Status.COMPLETE else dict.fromkeys(tokens)
    line = f'  File "handlers.py", line {at % 9}, in step\n    await ask(company)\n'
    return {
        **used,
        "usage": {"gpt-5": tokens} if status is Status.COMPLETE else None,
        "error": f"RuntimeError: no answer {at % 40}\n{line * 12}" if status is Status.ERROR else None,
    }


def _agent_id(created: datetime, chance: random.Random) -> UUID:
    """Return an id ordered by time, like those of tasks."""
    number = int(created.timestamp() * 1000) << 80 | 7 << 76 | chance.getrandbits(76)
    return UUID(int=number & ~(0b11 << 62) | 0b10 << 62)


def _later(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)


def _add_logs(connection: Any, each: int) -> None:
    numbers = union_all(*(select(literal(number).label("number")) for number in range(each))).subquery("n")
    for kind in range(TYPES):
        lines = (
            select(
                Activity.agent_id,
                Activity.created_at,
                Activity.status,
                Activity.message,
                (numbers.c.number * 10).label("percentage"),
            )
            .join(numbers, true())
            .where(Activity.agent_type == f"task_{kind}")
        )
        into = ["activity_id", "created_at", "status", "message", "percentage"]
        connection.execute(insert(ActivityLog.__table__).inline().from_select(into, lines))  # type: ignore[arg-type]
        connection.commit()

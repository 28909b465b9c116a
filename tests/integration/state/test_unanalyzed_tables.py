"""Work on a PostgreSQL queue costs the same while the planner knows nothing of a table that has just been filled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.round_trips import INDEX_ORDER_SETTINGS
from agentexec.runtime import RUNTIME
from agentexec.worker.index_repair import PUSH_GRACE, IndexRepair
from tests.waiting import wait_until

QUEUE = "agentexec_tasks"
TASKS = 10_000
LATER = timedelta(seconds=PUSH_GRACE + 1)

FILL_RECORD = text(  # the messages make a planner that has no statistics expect several rows
    "INSERT INTO agentexec_activity (agent_id, agent_type, status, percentage, message, created_at, updated_at, queue, "
    "priority, epoch, attempt, crashes) SELECT lpad(to_hex(n), 32, '0')::uuid, 'noop', 'QUEUED', 0, repeat('x', 1000), "
    "CAST(:since AS timestamptz) + n * interval '1 microsecond', now(), :queue, 1, 0, 0, 0 "
    "FROM generate_series(CAST(:first AS integer), :last) n"
)
FILL_QUEUE = text(
    "INSERT INTO agentexec_queue (agent_id, queue, priority, lane, at, epoch) "
    "SELECT lpad(to_hex(n), 32, '0')::uuid, :queue, 1, :lane, "
    "CAST(EXTRACT(EPOCH FROM now()) * 1000000 AS bigint) + CAST(:shift AS bigint) + n, 0 "
    "FROM generate_series(CAST(:first AS integer), :last) n"
)
ROWS_READ = text(
    "SELECT (SELECT COALESCE(SUM(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE relname = ANY(:tables)) "
    "+ (SELECT COALESCE(SUM(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname = ANY(:tables))"
)
OTHERS = text(
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
    "AND pid <> pg_backend_pid() AND query NOT LIKE 'LISTEN%'"
)
TABLES = ["agentexec_activity", "agentexec_queue"]

Reads = Callable[[Callable[[], object]], int]


@pytest.fixture
def observer(postgres_tables: str) -> Iterator[Engine]:
    """An engine beside that of the runtime, on a database that nobody analyzes."""
    engine = create_engine(postgres_tables, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text(f"TRUNCATE {', '.join(TABLES)} CASCADE")
        )  # also of the dead rows of earlier tests
        for table in TABLES:
            connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
    ax.configure(database_url=postgres_tables)
    yield engine
    with engine.connect() as connection:
        for table in TABLES:
            connection.execute(text(f"ALTER TABLE {table} RESET (autovacuum_enabled)"))
    RUNTIME.close()
    engine.dispose()


@pytest.fixture
def reads(observer: Engine) -> Reads:
    """A function that returns the number of rows and index entries that the server reads for a call."""

    def total() -> int:
        RUNTIME.engine.dispose()  # a connection that ends reports what it has read
        with observer.connect() as connection:
            wait_until(lambda: connection.execute(OTHERS).scalar() == 0)
            connection.execute(text("SELECT pg_stat_force_next_flush()"))  # this one has filled the tables
            return int(connection.execute(ROWS_READ, {"tables": TABLES}).scalar_one())

    def measure(call: Callable[[], object]) -> int:
        before = total()
        call()
        return total() - before

    return measure


def fill(engine: Engine, first: int, last: int, *, lane: int = 1, shift: int = -60_000_000) -> None:
    values = {"queue": QUEUE, "first": first, "last": last, "lane": lane, "shift": shift}
    with engine.connect() as connection:
        connection.execute(FILL_QUEUE, values)


def claim(limit: int = 100) -> int:
    found = RUNTIME.backend.claim(QUEUE, "worker", limit=limit, low_quota=limit, lease_seconds=60)
    return len(found.leases)


def test_a_claim_reads_the_tasks_that_it_takes(observer: Engine, reads: Reads) -> None:
    fill(observer, 1, TASKS)
    assert reads(lambda: [claim() for _ in range(10)]) < 10 * 1000


def test_a_claim_does_not_read_tasks_that_are_not_due(observer: Engine, reads: Reads) -> None:
    fill(observer, 1, TASKS, shift=3_600_000_000)
    fill(observer, TASKS + 1, TASKS + 5)
    counts: list[int] = []
    assert reads(lambda: counts.append(claim())) < 200
    assert counts == [5]


def test_a_look_at_expired_leases_does_not_read_the_others(observer: Engine, reads: Reads) -> None:
    fill(observer, 1, TASKS, lane=2, shift=3_600_000_000)
    assert reads(lambda: RUNTIME.backend.expired_leases(QUEUE, 500)) < 100


def test_a_look_at_all_open_tasks_reads_each_of_them_a_few_times(observer: Engine, reads: Reads) -> None:
    with observer.connect() as connection:
        connection.execute(
            FILL_RECORD, {"since": utc_now() - LATER, "queue": QUEUE, "first": 1, "last": TASKS}
        )
    fill(observer, 1, TASKS)
    repair = IndexRepair(RUNTIME, Settings(queue_name=QUEUE))
    assert reads(lambda: repair.push_lost(time.monotonic())) < 6 * TASKS
    assert RUNTIME.backend.depth(QUEUE).ready == TASKS


def test_a_look_for_answers_does_not_read_the_tasks(observer: Engine, reads: Reads) -> None:
    with observer.connect() as connection:
        connection.execute(FILL_RECORD, {"since": utc_now(), "queue": QUEUE, "first": 1, "last": TASKS})
    repair = IndexRepair(RUNTIME, Settings(queue_name=QUEUE))
    assert reads(repair.wake_answered) < 100


def test_a_page_of_a_list_reads_what_it_shows(observer: Engine, reads: Reads) -> None:
    with observer.connect() as connection:
        connection.execute(FILL_RECORD, {"since": utc_now(), "queue": QUEUE, "first": 1, "last": TASKS})

    def list_page() -> None:
        with Session(RUNTIME.engine) as db:
            page = ax.activity.list(db, page=2, page_size=100)
            assert (len(page.items), page.total) == (100, TASKS)

    assert reads(list_page) < TASKS + 1000  # its total is counted in full

    def search() -> None:
        with Session(RUNTIME.engine) as db:
            assert ax.activity.list(db, text="nothing").total == 0

    assert reads(search) < TASKS, "the newest 3,000, and as many to know that there are more"


def test_a_list_leaves_the_settings_of_its_transaction(observer: Engine) -> None:
    settings = text("SELECT " + ", ".join(f"current_setting('{name}')" for name in INDEX_ORDER_SETTINGS))
    with Session(RUNTIME.engine) as db:
        db.execute(text("SET LOCAL enable_bitmapscan = off"))
        before = db.execute(settings).one()
        ax.activity.list(db)
        assert db.execute(settings).one() == before
        with pytest.raises(ax.UsageError):
            ax.activity.list(db, after="invalid")
        assert db.execute(settings).one() == before
    assert tuple(before) == ("on", "off", "on")

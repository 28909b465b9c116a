"""Time partitions of log and journal on PostgreSQL: the tables' rows stay, prune drops what is old, nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity import partitions
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.activity.models import Activity, ActivityLog
from agentexec.db.clock import utc_now
from agentexec.db.engine import open_engine
from agentexec.journal.models import JournalEntry
from agentexec.schema.partitioning import partition
from agentexec.schema.tables import check_schema
from agentexec.task import Priority, Status
from agentexec.worker.partition_care import INTERVAL, PartitionCare

NOW = datetime.now(UTC).replace(microsecond=0)
LOG = ActivityLog.__tablename__


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = open_engine(postgres_url)
    ax.Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def id_of(moment: datetime, number: int = 0) -> UUID:
    return UUID(int=partitions.first_id(moment).int + number)


def add(
    engine: Engine, agent_id: UUID, status: Status = Status.COMPLETE, metadata: dict[str, Any] | None = None
) -> UUID:
    """Add a task of the id's time with a line of the log and a fact of the journal."""
    at = partitions.time_of(agent_id)
    new = NewTask(agent_id, "work", None, "q", Priority.LOW, None, metadata, None, "Hello.", status)
    ended = {"finished_at": at} if status is not Status.QUEUED else {}
    fact = {"path": "run", "seq": 0, "kind": "run", "input_hash": "", "value": "1", "epoch": 1}
    with engine.begin() as connection:
        insert_tasks(connection, [new], at)
        connection.execute(insert(JournalEntry).values(agent_id=agent_id, created_at=at, **fact))
        connection.execute(
            update(Activity).where(Activity.agent_id == agent_id).values(**ended or {"run_at": None})
        )
    return agent_id


def kept(engine: Engine) -> list[set[UUID]]:
    """Return the ids in the record, in the log and in the journal."""
    with engine.connect() as connection:
        columns = (Activity.agent_id, ActivityLog.activity_id, JournalEntry.agent_id)
        return [{*connection.execute(select(column)).scalars()} for column in columns]


def ends(engine: Engine) -> list[datetime]:
    """Return the ends of the log's partitions."""
    with engine.connect() as connection:
        found = partitions.partitions(connection)
    return [partition.until for partition in found if partition.table == LOG and partition.until is not None]


def prune(engine: Engine, **options: Any) -> int:
    with Session(engine) as db:
        return ax.activity.prune(db, timedelta(days=5), **options)


def partition_long_ago(engine: Engine) -> None:
    """Have daily partitions from ten days ago on."""
    partition(engine, "daily", NOW - timedelta(days=10))
    with engine.begin() as connection:
        partitions.add_due(connection, "daily", NOW)


def test_the_rows_of_a_table_that_becomes_partitioned_stay_and_others_follow(engine: Engine) -> None:
    first = add(engine, id_of(NOW))
    of_the_future = add(engine, id_of(NOW + timedelta(days=400)))  # of a clock that was wrong
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS reads_only")
        connection.exec_driver_sql("CREATE ROLE reads_only")
        connection.exec_driver_sql(f"GRANT SELECT ON {LOG} TO reads_only")
    for interval in ("monthly", "weekly", "daily"):
        partition(engine, interval, NOW)
    check_schema(engine)
    second = add(engine, id_of(NOW, 1))
    assert kept(engine) == [{first, second, of_the_future}] * 3
    with engine.connect() as connection:
        assert connection.execute(select(func.count(func.distinct(ActivityLog.id)))).scalar() == 3
        may_read = text(f"SELECT has_table_privilege('reads_only', '{LOG}', 'SELECT')")
        assert connection.execute(may_read).scalar()
        assert partitions.interval_of(connection) == "daily"
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP OWNED BY reads_only")
        connection.exec_driver_sql("DROP ROLE reads_only")


def test_prune_drops_the_partitions_of_which_no_task_stays(engine: Engine) -> None:
    partition_long_ago(engine)
    days = [NOW.replace(hour=12) - timedelta(days=days) for days in (9, 8, 7, 0)]
    old = [add(engine, id_of(days[0], number)) for number in range(3)]
    ended, waiting = add(engine, id_of(days[1])), add(engine, id_of(days[1], 1), Status.QUEUED)
    mine = add(engine, id_of(days[2]), metadata={"tenant": "a"})
    other = add(engine, id_of(days[2], 1), metadata={"tenant": "b"})
    new = add(engine, id_of(days[3]))
    stays = {ended, waiting, other, new, *old}
    assert prune(engine, metadata_filter={"tenant": "a"}) == 1
    assert kept(engine) == [stays] * 3, "of a partition that stays, rows are deleted one by one"
    assert mine not in stays
    assert prune(engine) == 5
    assert kept(engine) == [{waiting, new}] * 3
    # The task that waits keeps its partition. All others that ended before the last five days are gone.
    recent = [end for end in ends(engine) if end <= NOW - timedelta(days=5)]
    assert recent == [days[1].replace(hour=0, minute=0, second=0) + timedelta(days=1)]


def test_a_partition_that_is_in_use_is_dropped_by_the_next_prune(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    partition_long_ago(engine)
    add(engine, id_of(NOW - timedelta(days=9)))
    before = ends(engine)
    with engine.connect() as reader:
        reader.execute(select(ActivityLog.id)).all()  # as a dump does, in a transaction that stays open
        assert prune(engine) == 1
        assert ends(engine) == before
    assert "The next prune tries again." in caplog.text
    assert prune(engine) == 0
    assert len(ends(engine)) < len(before)
    assert kept(engine) == [set()] * 3


def test_the_leader_makes_the_next_partitions_and_what_came_before_them_is_kept(engine: Engine) -> None:
    partition(engine, "daily", NOW - timedelta(days=20))
    late = add(
        engine, id_of(utc_now() - timedelta(minutes=1))
    )  # while no worker was there to make its partition
    care = PartitionCare(engine)
    assert care.run_if_due(0.0) > 0
    assert care.run_if_due(INTERVAL - 1) == 0
    assert care.run_if_due(INTERVAL) == 0, "there are enough"
    assert max(ends(engine)) > NOW + timedelta(days=6)
    soon = add(engine, id_of(NOW + timedelta(days=2)))
    assert kept(engine) == [{late, soon}] * 3
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT activity_id FROM {LOG}_default")).scalars().all()
    assert [*map(str, found)] == [str(late)]


def test_a_role_that_does_not_own_the_partitions_deletes_their_rows(engine: Engine) -> None:
    partition_long_ago(engine)
    add(engine, id_of(NOW - timedelta(days=9)))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS prunes")
        connection.exec_driver_sql("CREATE ROLE prunes LOGIN")
        connection.exec_driver_sql(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO prunes"
        )
    before = ends(engine)
    other = open_engine(engine.url.set(username="prunes"))
    try:
        assert prune(other) == 1
    finally:
        other.dispose()
    assert kept(engine) == [set()] * 3
    assert ends(engine) == before
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP OWNED BY prunes")
        connection.exec_driver_sql("DROP ROLE prunes")

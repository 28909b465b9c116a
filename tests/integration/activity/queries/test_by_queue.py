"""Lists and counts by queue, and counts by minute, of a record with many queued tasks: right, bounded, and by index alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.activity.queries import by_queue, listing, recent
from agentexec.activity.queries.active import ActiveFilter, count_matching, select_matching
from agentexec.activity.queries.filters import PROBE_LIMIT, Filter
from agentexec.activity.queries.overview import ended_per_minute
from agentexec.activity.queries.queues import count_by_queue
from agentexec.db import clock
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES, Status
from bench import sample_record
from bench.api_times import StoppedClock
from tests.conftest import DATABASES, Servers, ensure_running

NUMBER = 2_000
INDEX = "agentexec_activity_status_created"
ORDER = {Status.RUNNING: 0, Status.QUEUED: 1}


@pytest.fixture(scope="module", params=DATABASES)
def busy(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Database with several queues and many queued tasks, for tests that only read."""
    if request.param == "sqlite":
        server, url = None, f"sqlite:///{tmp_path_factory.mktemp('busy') / 'test.db'}"
    else:
        server = ensure_running(getattr(servers, request.param))
        url = server.create_database("busy")
    ax.configure(database_url=url)
    ax.Base.metadata.create_all(RUNTIME.engine)
    sample_record.fill(RUNTIME.engine, NUMBER, 1, shape=sample_record.BUSY)
    yield RUNTIME.engine
    RUNTIME.close()
    if server is not None:
        ensure_running(server).drop_database("busy")


@pytest.fixture(scope="module")
def everything(busy: Engine) -> list[Any]:
    columns = (Activity.agent_id, Activity.status, Activity.queue, Activity.run_at, Activity.finished_at)
    others = (Activity.created_at, Activity.metadata_)
    with busy.connect() as connection:
        return list(connection.execute(select(*columns, *others)))


@pytest.fixture
def db(busy: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Session at the moment at which the record was filled."""
    ax.configure(engine=busy)
    with Session(busy) as session:
        newest = session.execute(select(func.max(Activity.created_at))).scalar_one()
        monkeypatch.setattr(clock, "CLOCK", StoppedClock(lambda: newest))
        yield session


def of_queue(everything: list[Any], queue: str) -> list[Any]:
    return sorted(
        (row for row in everything if row.queue == queue),
        key=lambda row: (ORDER.get(row.status, 2), -row.created_at.timestamp(), -row.agent_id.int),
    )


@pytest.mark.parametrize("queue", ["agentexec_tasks", "queue_5", "none"])
def test_a_list_of_a_queue_is_complete_in_order_and_counted(
    db: Session, everything: list[Any], queue: str
) -> None:
    expected = [row.agent_id for row in of_queue(everything, queue)]
    first = ax.activity.list(db, page_size=20, queue=queue)
    assert [item.agent_id for item in first.items] == expected[:20]
    assert (first.total, first.total_is_exact) == (len(expected), True)
    second = ax.activity.list(db, 2, 20, queue=queue)
    assert [item.agent_id for item in second.items] == expected[20:40]


def test_a_list_of_a_queue_looks_at_a_bounded_number_of_tasks_and_says_so(
    db: Session, everything: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_queue, "MAX_SCANNED", 50)
    found = ax.activity.list(db, page_size=10, queue="queue_2", status="complete")
    newest = [row for row in everything if row.status is Status.COMPLETE]
    newest = sorted(newest, key=lambda row: (row.created_at, row.agent_id.int))[-50:]
    assert found.total == Counter(row.queue for row in newest)["queue_2"]
    assert not found.total_is_exact


def test_pages_by_cursor_go_further_than_the_bound(
    db: Session, everything: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_queue, "MAX_SCANNED", 200)
    expected = [row.agent_id for row in of_queue(everything, "agentexec_tasks")]
    seen, after = [], None
    while True:
        page = ax.activity.list(db, page_size=40, queue="agentexec_tasks", after=after)
        seen += [item.agent_id for item in page.items]
        after = page.next_cursor
        if after is None:
            break
    assert seen == expected


def test_queues_are_counted_exactly(db: Session, everything: list[Any]) -> None:
    now = clock.utc_now()
    for queue in ax.queues.list(db):
        own = [row for row in everything if row.queue == queue.name]
        queued = [row for row in own if row.status is Status.QUEUED]
        ready = [row for row in queued if row.run_at is None or row.run_at <= now]
        assert (queue.ready, queue.delayed) == (len(ready), len(queued) - len(ready))
        assert queue.running == len([row for row in own if row.status is Status.RUNNING])
        assert queue.oldest_ready_at == min((row.run_at or row.created_at for row in ready), default=None)


def test_each_minute_counts_what_ended_in_it(db: Session, everything: list[Any]) -> None:
    found = ax.activity.overview(db, 60)
    for status, numbers in (
        (Status.COMPLETE, found.done_per_minute),
        (Status.ERROR, found.failed_per_minute),
    ):
        ages = [(found.at - row.finished_at) for row in everything if row.status is status]
        minutes = Counter(age // timedelta(minutes=1) for age in ages if age >= timedelta(0))
        assert numbers == [minutes[ago] for ago in reversed(range(60))]
    active = [row for row in everything if row.status in ACTIVE_STATUSES]
    assert found.active == len(active)
    ready = [row for row in active if row.status is Status.QUEUED and (row.run_at or found.at) <= found.at]
    assert found.oldest_queued_at == min(row.created_at for row in ready)


def ended_of(everything: list[Any], tenant: str, at: Any, status: Status) -> Counter[int]:
    own = [row for row in everything if row.status is status and row.metadata["tenant"] == tenant]
    ages = [at - row.finished_at for row in own]
    return Counter(age // timedelta(minutes=1) for age in ages if age >= timedelta(0))


@pytest.mark.parametrize("limit", [PROBE_LIMIT, 1], ids=["few have the label", "many have the label"])
def test_the_minutes_of_a_tenant_are_counted_exactly_while_they_are_few(
    db: Session, everything: list[Any], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "PROBE_LIMIT", limit)
    found = ax.activity.overview(db, 60, metadata_filter={"tenant": "t0"})
    for status, numbers in (
        (Status.COMPLETE, found.done_per_minute),
        (Status.ERROR, found.failed_per_minute),
    ):
        minutes = ended_of(everything, "t0", found.at, status)
        assert numbers == [minutes[ago] for ago in reversed(range(60))]
    assert sum(found.done_per_minute) > 0
    assert found.exact_minutes == 60
    queued = [row for row in everything if row.status is Status.QUEUED and row.metadata["tenant"] == "t0"]
    assert found.queued == len(queued)
    assert found.oldest_queued_at == min(
        row.created_at for row in queued if (row.run_at or found.at) <= found.at
    )


def test_the_minutes_of_a_large_tenant_are_bounded_and_tell_so(
    db: Session, everything: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "PROBE_LIMIT", 1)
    monkeypatch.setattr(recent, "MAX_ENDED", 50)
    found = ax.activity.overview(db, 60, metadata_filter={"tenant": "t0"})
    assert 0 < found.exact_minutes < 60
    minutes = ended_of(everything, "t0", found.at, Status.COMPLETE)
    exact = range(found.exact_minutes)
    assert found.done_per_minute[-found.exact_minutes :] == [minutes[ago] for ago in reversed(exact)]
    assert ax.activity.overview(db, 60).exact_minutes == 60


@pytest.mark.parametrize("limit", [PROBE_LIMIT, 1], ids=["few have the label", "many have the label"])
def test_usage_is_summed_over_the_tasks_of_a_tenant(
    db: Session, everything: list[Any], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "PROBE_LIMIT", limit)
    ended = [row for row in everything if row.status is Status.COMPLETE]
    number = len([row for row in ended if row.metadata["tenant"] == "t0"])
    since = 200 * 24 * 60
    assert ax.activity.spent(db, since, metadata_filter={"tenant": "t0"}).usage.requests == 3 * number
    assert ax.activity.spent(db, since).usage.requests == 3 * len(ended)
    monkeypatch.setattr(recent, "MAX_ENDED_OF_ALL", 10)
    assert ax.activity.spent(db, since).usage.requests <= 3 * 10


@pytest.mark.parametrize("metadata", [None, {"tenant": "t0"}])
def test_active_tasks_are_counted_by_queue(
    db: Session, everything: list[Any], metadata: dict[str, str] | None
) -> None:
    own = [row for row in everything if row.status in ACTIVE_STATUSES and row.queue == "queue_2"]
    if metadata is not None:
        own = [row for row in own if row.metadata["tenant"] == "t0"]
    wanted = ActiveFilter(queue="queue_2", metadata=metadata)
    assert count_matching(db, wanted, 10_000) == len(own)
    assert {found for found, _ in select_matching(db.connection(), wanted, 10_000)} == {
        row.agent_id for row in own
    }


# ---- plans -------------------------------------------------------------------------------------------------


def accesses(engine: Engine, db: Session, query: Any, given: dict[str, Any] | None = None) -> list[str]:
    """Return how a statement reads each table of activities, as its database tells."""
    if engine.dialect.name == "postgresql":
        # With so few rows a full scan may be cheapest, and is not wrong: the question is whether an index can serve.
        db.execute(text("SET LOCAL enable_seqscan = off"))
    compiled = query.params(given or {}).compile(engine, compile_kwargs={"literal_binds": True})
    statement = str(compiled).replace(":", "\\:")
    explain = {"postgresql": "EXPLAIN", "sqlite": "EXPLAIN QUERY PLAN"}.get(engine.dialect.name, "EXPLAIN")
    lines = [" ".join(map(str, row)) for row in db.execute(text(f"{explain} {statement}"))]
    return [line for line in lines if "agentexec_activity" in line and "Cond" not in line]


ALONE = {"sqlite": "COVERING INDEX ix_", "postgresql": "Index Only Scan", "mysql": "Using index"}
"""Words of a plan that mean that an index has all that is read."""


@pytest.mark.parametrize("status", [None, "queued", "complete"])
def test_a_queue_is_listed_and_counted_by_one_index_alone(
    busy: Engine, db: Session, status: str | None
) -> None:
    wanted = Filter(None if status is None else Status(status), queue="queue_2")
    counting = accesses(busy, db, by_queue.count_query(wanted))
    assert len(counting) == len(wanted.statuses)
    assert all(ALONE[kind_of(busy)] in line and INDEX in line for line in counting), counting
    listed = accesses(busy, db, listing.page_query(wanted, 50))
    by_index = [line for line in listed if INDEX in line]
    assert len(by_index) == len(wanted.statuses)
    assert all(ALONE[kind_of(busy)] in line for line in by_index), listed
    others = [line for line in listed if line not in by_index]
    assert all(
        "agentexec_activity_pkey" in line or "autoindex" in line or "PRIMARY" in line for line in others
    )


def test_queues_are_counted_by_one_index_alone(busy: Engine, db: Session) -> None:
    [line] = accesses(busy, db, count_by_queue(clock.utc_now()))
    assert ALONE[kind_of(busy)] in line
    assert INDEX in line


def test_each_minute_is_a_range_of_one_index(busy: Engine, db: Session) -> None:
    now = clock.utc_now()
    moments = {f"ago_{ago}": now - timedelta(minutes=ago) for ago in range(4)}
    lines = accesses(busy, db, ended_per_minute(3), moments)
    assert len(lines) == 3
    assert all(ALONE[kind_of(busy)] in line and "activity_finished" in line for line in lines), lines


def kind_of(engine: Engine) -> str:
    return "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name

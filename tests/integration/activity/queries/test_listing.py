"""Lists among many activities: the matching ones, in order, read by index."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Select, event, insert, select, text, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.changes import cancel_pending as canceling
from agentexec.activity.models import Activity, ActivityLabel, ActivityLog, Meta
from agentexec.activity.queries import counts, filters, listing
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from bench import sample_record
from tests.conftest import DATABASES, Servers, ensure_running

NUMBER = 6_000
ORDER = {Status.RUNNING: 0, Status.QUEUED: 1}

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "status": {"status": "error"},
    "queued": {"status": "queued"},
    "type": {"task_name": "task_7"},
    "type and status": {"task_name": "task_7", "status": "complete"},
    "tenant": {"metadata_filter": {"tenant": "t0"}},
    "small tenant": {"metadata_filter": {"tenant": "t40"}},
    "tenant and user": {"metadata_filter": {"tenant": "t0", "user": "u8"}},
    "tenant and status": {"metadata_filter": {"tenant": "t0"}, "status": "error"},
    "tenant and type": {"metadata_filter": {"tenant": "t0"}, "task_name": "task_7"},
    "time": {"created_after": timedelta(days=40), "created_before": timedelta(days=33)},
    "time and status": {"created_after": timedelta(days=40), "status": "complete"},
    "time and tenant": {"created_after": timedelta(days=40), "metadata_filter": {"tenant": "t0"}},
    "text": {"text": "ACME 1"},
    "text and tenant": {"text": "wonka", "metadata_filter": {"tenant": "t0"}},
}


@pytest.fixture(scope="module", params=DATABASES)
def crowded(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Database of each kind with 6,000 activities, for tests that only read."""
    if request.param == "sqlite":
        server, url = None, f"sqlite:///{tmp_path_factory.mktemp('crowd') / 'test.db'}"
    else:
        server = ensure_running(getattr(servers, request.param))
        url = server.create_database("crowd")
    ax.configure(database_url=url)
    ax.Base.metadata.create_all(RUNTIME.engine)
    sample_record.fill(RUNTIME.engine, NUMBER, 1)
    yield RUNTIME.engine
    RUNTIME.close()
    if server is not None:
        ensure_running(server).drop_database("crowd")


@pytest.fixture(scope="module")
def everything(crowded: Engine) -> list[Any]:
    columns = (Activity.agent_id, Activity.agent_type, Activity.status, Activity.message)
    with crowded.connect() as connection:
        return list(connection.execute(select(*columns, Activity.created_at, Activity.metadata_)))


@pytest.fixture(autouse=True)
def configured(crowded: Engine) -> None:
    ax.configure(engine=crowded)


@pytest.fixture
def db(crowded: Engine) -> Iterator[Session]:
    with Session(crowded) as session:
        yield session


def arguments(filters: dict[str, Any]) -> dict[str, Any]:
    """Return the filters with ages as times."""
    return {
        name: utc_now() - value if isinstance(value, timedelta) else value for name, value in filters.items()
    }


def meets(row: Any, wanted: dict[str, Any]) -> bool:
    part = wanted.get("text", "").lower()
    return (
        wanted.get("status") in (None, row.status)
        and wanted.get("task_name") in (None, row.agent_type)
        and ("created_after" not in wanted or row.created_at >= wanted["created_after"])
        and ("created_before" not in wanted or row.created_at < wanted["created_before"])
        and (wanted.get("metadata_filter") or {}).items() <= row.metadata.items()
        and (part in row.message.lower() or part in row.agent_type)
    )


@pytest.mark.parametrize("name", FILTERS)
def test_a_list_has_exactly_the_matching_activities_in_order(
    db: Session, everything: list[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_SEARCHED", NUMBER)
    wanted = arguments(FILTERS[name])
    expected = sorted(
        (row for row in everything if meets(row, wanted)),
        key=lambda row: (ORDER.get(row.status, 2), -row.created_at.timestamp(), -row.agent_id.int),
    )
    assert expected, "a filter that matches nothing tests nothing"
    first = ax.activity.list(db, page_size=40, **wanted)
    assert [item.agent_id for item in first.items] == [row.agent_id for row in expected[:40]]
    if first.total_is_exact:
        assert first.total == len(expected)
    else:
        assert first.total <= len(expected)
    third = ax.activity.list(db, 3, 40, **wanted)
    assert [item.agent_id for item in third.items] == [row.agent_id for row in expected[80:120]]


TENANTS = [name for name, filters in FILTERS.items() if "metadata_filter" in filters]


@pytest.mark.parametrize("name", TENANTS)
def test_the_driving_index_does_not_change_the_list_or_the_count(
    db: Session, everything: list[Any], name: str
) -> None:
    wanted = filter_of(name)
    assert wanted.metadata is not None
    expected = {row.agent_id for row in everything if meets(row, arguments(FILTERS[name]))}
    for leads in itertools.product((None, *range(len(wanted.metadata))), repeat=3):
        given = wanted._replace(driving_labels=leads)
        found = db.execute(listing.page_query(given, NUMBER)).all()
        assert {row.Activity.agent_id for row in found} == expected, leads
        assert [row.rank for row in found] == sorted(row.rank for row in found)
        if given.text is None and not (given.has_no_status_or_type and leads[2] is None):
            assert db.execute(listing.count_query(given, NUMBER)).one()[0] == len(expected), leads


def test_the_most_selective_condition_drives_the_query(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "PROBE_LIMIT", 20)

    def leads(**wanted: Any) -> Any:
        return filters.with_most_selective_index(db, filters.Filter(**wanted)).driving_labels

    large, small, user = {"tenant": "t0"}, {"tenant": "t40"}, {"user": "u8"}
    assert leads(metadata={**large, **user})[2] == 1
    assert leads(metadata={**user, **large})[2] == 0
    assert leads(metadata=large, status=Status.ERROR)[2] is None
    assert leads(metadata=small, status=Status.ERROR)[2] == 0
    assert leads(metadata=small, status=Status.COMPLETE)[2] == 0
    assert leads(metadata=large, task_name="task_7")[2] is None
    assert leads(metadata=user, task_name="task_7")[2] == 0
    assert leads(metadata=user)[1] == 0, "hardly any of its activities are as new as the queued ones"


@pytest.mark.parametrize("name", ["all", "tenant", "time", "text", "queued"])
def test_cursors_page_through_every_activity_once(
    db: Session, everything: list[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_SEARCHED", NUMBER)
    wanted = arguments(FILTERS[name])
    expected = {row.agent_id for row in everything if meets(row, wanted)}
    found: list[Any] = []
    cursor = None
    while True:
        page = ax.activity.list(db, page_size=700, after=cursor, **wanted)
        found += [item.agent_id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(found) == len(expected)
    assert set(found) == expected


def test_a_cursor_skips_nothing_when_new_activities_come(db: Session, crowded: Engine) -> None:
    first = ax.activity.list(db, page_size=10, status="complete")
    db.rollback()
    newer = ax.activity.create("newer")
    try:
        with crowded.begin() as connection:
            connection.execute(
                update(Activity).where(Activity.agent_id == newer).values(status=Status.COMPLETE)
            )
        behind = ax.activity.list(db, page_size=10, status="complete", after=first.next_cursor)
        pages = ax.activity.list(db, 2, 10, status="complete")
        assert pages.items[0].agent_id == first.items[-1].agent_id, "new activities move a page"
        assert not {item.agent_id for item in behind.items} & {item.agent_id for item in first.items}
    finally:
        with crowded.begin() as connection:
            connection.execute(Activity.__table__.delete().where(Activity.agent_id == newer))  # type: ignore[attr-defined]


def test_a_text_search_finds_an_agent_id(db: Session) -> None:
    wanted = ax.activity.list(db, 5, 3).items[0].agent_id
    assert [item.agent_id for item in ax.activity.list(db, text=f" {wanted} ").items] == [wanted]
    assert [item.agent_id for item in ax.activity.list(db, text=wanted.hex).items] == [wanted]


@pytest.mark.parametrize("given", ["100%", "_", "\\", "'", "Step 1 of 10 for Acme 2%"])
def test_a_searched_text_is_not_a_pattern(db: Session, given: str) -> None:
    found = ax.activity.list(db, text=given)
    assert all(given in f"{item.task_name} {item.latest_log_message}" for item in found.items)
    assert (found.total > 0) == (given == "_"), "every task name has an underscore"


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": "nonsense"},
        {"after": "MSAyMDI2IHg="},
        {"after": "x", "page": 2},
        {"created_after": utc_now().replace(tzinfo=None)},
        {"page": 0},
        {"page_size": 1001},
    ],
)
def test_invalid_arguments_of_a_list_are_refused(db: Session, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ax.activity.list(db, **wrong)


# ---- counts ------------------------------------------------------------------------------------------------


def test_cached_counts_equal_those_of_the_table(
    db: Session, crowded: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def totals() -> list[int]:
        return [
            ax.activity.list(db, page_size=1, status=status, task_name=kind).total
            for status in (None, *Status)
            for kind in (None, "task_3", "none")
        ]

    before = totals()
    assert before[0] == NUMBER
    monkeypatch.setattr(counts, "CACHE_MIN_ROWS", 100)
    counts.refresh(crowded)
    db.rollback()
    try:
        assert db.get(Meta, counts.NAME) is not None
        assert totals() == before
        made = ax.activity.create("task_3")
        ax.activity.complete(made)
        db.rollback()
        after = totals()
        assert after[0] == NUMBER + 1, "later activities are counted too"
        with crowded.begin() as connection:
            connection.execute(Activity.__table__.delete().where(Activity.agent_id == made))  # type: ignore[attr-defined]
    finally:
        with crowded.begin() as connection:
            counts.invalidate(connection)


@pytest.mark.parametrize(
    "crowded", ["sqlite"], indirect=True
)  # the other planners know how few have ended since
def test_activities_ended_since_the_cached_counts_are_found_by_end_time(
    crowded: Engine, db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "CACHE_MIN_ROWS", 100)
    counts.refresh(crowded)
    try:
        with recorded_selects(crowded) as statements:
            ax.activity.list(db, page_size=1, task_name="task_3")
        since = [statement for statement in statements if "finished_at >" in statement]
        assert len(since) == 1
        plan = db.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {since[0]}", statements[since[0]])
        assert "activity_finished (finished_at>?" in " ".join(row.detail for row in plan)
        db.rollback()
    finally:
        with crowded.begin() as connection:
            counts.invalidate(connection)


def test_counts_of_few_activities_are_not_cached(crowded: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "CACHE_MIN_ROWS", NUMBER)
    with crowded.begin() as connection:
        connection.execute(insert(Meta), [{"name": counts.NAME, "value": "{}"}])
    counts.refresh(crowded)
    with Session(crowded) as db:
        assert db.get(Meta, counts.NAME) is None


def test_matches_of_a_tenant_are_counted_up_to_a_limit(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ax.activity.list(db, metadata_filter={"tenant": "t0"})
    assert whole.total_is_exact
    monkeypatch.setattr(listing, "MAX_COUNTED", 100)
    found = ax.activity.list(db, metadata_filter={"tenant": "t0"})
    assert (found.total, found.total_is_exact) == (100, False)


def test_a_backlog_of_any_length_is_counted_up_to_a_limit(
    db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = ax.activity.list(db, status="queued").total
    running = ax.activity.list(db, status="running").total
    name = ax.activity.list(db, task_name="task_3", status="queued")
    everything = ax.activity.list(db)
    assert everything.total_is_exact
    monkeypatch.setattr(counts, "MAX_ACTIVE", queued)
    assert ax.activity.list(db) == everything
    monkeypatch.setattr(counts, "MAX_ACTIVE", queued - 1)
    assert running < queued
    found = ax.activity.list(db, status="queued")
    assert (found.total, found.total_is_exact) == (queued - 1, False)
    found = ax.activity.list(db)
    assert (found.total, found.total_is_exact) == (everything.total - 1, False)
    assert ax.activity.list(db, task_name="task_3", status="queued") == name
    assert ax.activity.active_count(db) == queued + running


@contextlib.contextmanager
def recorded_selects(engine: Engine) -> Iterator[dict[str, Any]]:
    """Record the SELECT statements sent within the block, with their parameters."""
    sent: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.lstrip().startswith("SELECT"):
            sent[statement] = parameters

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_a_text_that_nothing_contains_is_searched_for_once(crowded: Engine, db: Session) -> None:
    with recorded_selects(crowded) as statements:
        found = ax.activity.list(db, text="nowhere", metadata_filter={"tenant": "t0"})
    assert (found.total, found.items) == (0, [])
    assert len([statement for statement in statements if "LIKE" in statement]) == 1


def test_the_last_page_tells_the_total_by_itself(crowded: Engine, db: Session, everything: list[Any]) -> None:
    wanted = {"metadata_filter": {"tenant": "t0", "user": "u8"}}
    number = len([row for row in everything if meets(row, wanted)])
    pages = -(-number // 5)
    with recorded_selects(crowded) as statements:
        found = ax.activity.list(db, pages, 5, **wanted)  # type: ignore[arg-type]
    assert (found.total, found.total_is_exact) == (number, True)
    assert 0 < len(found.items) < 5, "choose another number of activities, so that the page is not full"
    assert not [statement for statement in statements if "counted" in statement]


# ---- plans -------------------------------------------------------------------------------------------------


def scans(engine: Engine, db: Session, query: Select[Any], narrowed: bool = False) -> list[str]:
    """Return the tables that a statement reads from end to end, according to the database's plan.

    `narrowed`: on PostgreSQL, also the indexes that are read from end to end.
    """
    ours = {model.__tablename__ for model in (Activity, ActivityLabel)}
    statement = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    if engine.dialect.name == "postgresql":
        plan = db.execute(text("EXPLAIN (FORMAT JSON) " + statement.replace(":", "\\:"))).scalar_one()
        return [str(node) for node in nodes(plan) if is_seq_scan(node, ours) or (narrowed and is_whole(node))]
    if engine.dialect.name == "sqlite":
        rows = db.execute(text("EXPLAIN QUERY PLAN " + statement.replace(":", "\\:"))).all()
        return [row.detail for row in rows if row.detail.startswith("SCAN agentexec")]
    rows = db.execute(text("EXPLAIN " + statement.replace(":", "\\:"))).all()
    return [
        str(row) for row in rows if row.type in ("ALL", "index") and str(row.table).startswith("agentexec")
    ]


def plan_of(engine: Engine, db: Session, query: Select[Any]) -> list[dict[str, Any]]:
    """Return the steps of a statement's plan in the terms of its database."""
    statement = str(query.compile(engine, compile_kwargs={"literal_binds": True})).replace(":", "\\:")
    if engine.dialect.name == "postgresql":
        return list(nodes(db.execute(text("EXPLAIN (FORMAT JSON) " + statement)).scalar_one()))
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    return [dict(row) for row in db.execute(text(explain + statement)).mappings()]


def joined_by_hash(plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps that read all of one side: hash and merge joins on PostgreSQL, lists and automatic indexes on SQLite."""
    return [
        step
        for step in plan
        if step.get("Node Type") in ("Hash Join", "Merge Join")
        or str(step.get("detail", "")).startswith(("LIST SUBQUERY", "BLOOM"))
        or "AUTOMATIC" in str(step.get("detail", ""))
    ]


def label_accesses(plan: list[dict[str, Any]]) -> list[str]:
    """Return how each step that reads labels finds them: by the "key" of one activity, by the "label", or by "none"."""
    ways = []
    for step in plan:
        if ActivityLabel.__tablename__ not in str(
            step.get("Relation Name", step.get("detail", step.get("table")))
        ):
            continue
        if "Node Type" in step:
            # A bitmap scan has its condition at the heap, as the one to recheck.
            found = step.get("Index Cond", step.get("Recheck Cond", ""))
        elif "detail" in step:
            found = step["detail"] if "INDEX" in step["detail"] else ""
        else:
            found = f"{step['ref']} name"
        by_id = "agent_id" in found or "agent_id=" in found
        ways.append("none" if not found else "key" if by_id else "label")
    return ways


def scanned(dialect: str, plan: Any) -> list[str]:
    """Return the growing tables that a plan reads from end to end."""
    ours = {model.__tablename__ for model in (Activity, ActivityLabel, ActivityLog)}
    if dialect == "postgresql":
        return [str(node) for node in nodes(plan.scalar_one()) if is_seq_scan(node, ours)]
    if dialect == "sqlite":
        # A LIST step collects everything that meets a condition, such as all activities with a label.
        rows = [row.detail.split() for row in plan]
        return [
            " ".join(words)
            for words in rows
            if words[0] == "LIST" or (words[0] == "SCAN" and words[1] in ours)
        ]
    return [str(row) for row in plan if row.type in ("ALL", "index") and row.table in ours]


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    """Yield every node of a PostgreSQL plan."""
    if isinstance(plan, dict):
        yield plan
    for value in plan.values() if isinstance(plan, dict) else plan if isinstance(plan, list) else ():
        yield from nodes(value)


def is_seq_scan(node: dict[str, Any], tables: set[str]) -> bool:
    return node.get("Node Type") == "Seq Scan" and node.get("Relation Name") in tables


def is_whole(node: dict[str, Any]) -> bool:
    return node.get("Node Type", "").startswith(("Index ", "Bitmap Index")) and "Index Cond" not in node


def filter_of(name: str) -> filters.Filter:
    given = arguments(FILTERS[name])
    metadata = given.pop("metadata_filter", None)
    if "status" in given:
        given["status"] = Status(given["status"])
    return filters.Filter(**given, metadata=metadata)


@pytest.mark.parametrize("name", FILTERS)
def test_a_page_is_read_by_index(
    crowded: Engine, db: Session, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        listing, "MAX_SEARCHED", 50
    )  # as small a share of these rows as 10,000 are of a million
    wanted = filter_of(name)
    assert scans(crowded, db, listing.page_query(wanted, 50)) == []
    cursor = ax.activity.list(db, page_size=5, **arguments(FILTERS[name])).next_cursor
    assert scans(crowded, db, listing.page_query(wanted, 50, after=cursor)) == []


@pytest.mark.parametrize("name", TENANTS)
def test_one_label_drives_the_query_and_the_others_are_looked_up(
    crowded: Engine, db: Session, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activities of other tenants cost nothing: no join starts with every activity that has a label."""
    monkeypatch.setattr(listing, "MAX_SEARCHED", 50)
    wanted = filter_of(name)
    labels = len(wanted.metadata or {})
    groups = 3 if wanted.status is None else 1
    for lead, active in itertools.product(range(labels), (None, 0)):
        plan = plan_of(
            crowded, db, listing.page_query(wanted._replace(driving_labels=(active, active, lead)), 50)
        )
        assert not joined_by_hash(plan)
        ways = label_accesses(plan)
        assert len(ways) == groups * labels, plan
        assert ways.count("label") == (1 if active is None else groups), plan
        assert "none" not in ways, plan


@pytest.mark.parametrize("name", [name for name, filters in FILTERS.items() if "text" not in filters])
def test_matches_are_counted_by_index(crowded: Engine, db: Session, name: str) -> None:
    wanted = filter_of(name)
    if crowded.dialect.name == "postgresql":
        # With so few rows a full scan may be cheapest, and is not wrong: the question is whether an index can narrow them.
        db.execute(text("SET LOCAL enable_seqscan = off"))
    if not wanted.is_plain:
        assert scans(crowded, db, listing.count_query(wanted, 50), narrowed=True) == []


READS: dict[str, Any] = {
    "active_count": ax.activity.active_count,
    "active_count of a tenant": lambda db: ax.activity.active_count(db, metadata_filter={"tenant": "t40"}),
    "overview": ax.activity.overview,
    "overview of a tenant": lambda db: ax.activity.overview(db, metadata_filter={"tenant": "t0"}),
    "overview of an hour": lambda db: ax.activity.overview(db, 60),
    "queues": ax.queues.list,
    "list of a queue": lambda db: ax.activity.list(db, queue="agentexec_tasks"),
    "list of a queue and a name": lambda db: ax.activity.list(
        db, queue="agentexec_tasks", task_name="task_7"
    ),
    "spent of a tenant": lambda db: ax.activity.spent(db, metadata_filter={"tenant": "t0"}),
    "detail": lambda db: ax.activity.detail(db, ax.activity.list(db, page_size=1).items[0].agent_id),
    "cancel_pending": ax.activity.cancel_pending,
    "cancel_pending of a tenant": lambda db: ax.activity.cancel_pending(
        db, metadata_filter={"tenant": "t40"}
    ),
}


class EnoughError(Exception):
    """Ends a loop that would never end."""


@pytest.mark.parametrize("name", READS)
def test_counts_details_and_cancel_pending_go_by_index(
    crowded: Engine, db: Session, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every SELECT is explained exactly as it was sent."""

    def end_nothing(*_arguments: Any, **_rest: Any) -> list[Any]:
        raise EnoughError

    monkeypatch.setattr(canceling, "end_from_outside", end_nothing)
    with recorded_selects(crowded) as statements, contextlib.suppress(EnoughError):
        READS[name](db)
    assert statements
    dialect = crowded.dialect.name
    if dialect == "postgresql":
        # With so few rows a full scan may be cheapest, and is not wrong: the question is whether an index can serve.
        db.execute(text("SET LOCAL enable_seqscan = off"))
    explain = {"postgresql": "EXPLAIN (FORMAT JSON)", "sqlite": "EXPLAIN QUERY PLAN"}.get(dialect, "EXPLAIN")
    for statement, given in statements.items():
        plan = db.connection().exec_driver_sql(f"{explain} {statement}", given)
        assert scanned(dialect, plan) == [], statement

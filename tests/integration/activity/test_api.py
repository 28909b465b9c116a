"""Activity API: reports of progress, and queries for dashboards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import agentexec as ax
from agentexec.runtime import RUNTIME


@pytest.fixture
def engine(tables_url: str) -> Iterator[Engine]:
    """Empty record on each kind of database."""
    ax.configure(database_url=tables_url)
    yield RUNTIME.engine
    RUNTIME.close()


@pytest.fixture
def db(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.thorough)])
async def async_engine(request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    """AsyncEngine of the user, given to agentexec."""
    url = request.getfixturevalue(f"{request.param}_tables").replace("sqlite:", "sqlite+aiosqlite:")
    engine = create_async_engine(url)
    ax.configure(engine=engine)
    yield engine
    await engine.dispose()
    RUNTIME.close()


def lines(db: Session, agent_id: UUID) -> list[tuple[str, str, int | None]]:
    return [
        (str(line.status), line.message, line.percentage) for line in ax.activity.detail(db, agent_id).logs
    ]


# ---- reports -----------------------------------------------------------------------------------------------


def test_an_application_tracks_its_own_activity_from_create_to_complete(db: Session) -> None:
    agent_id = ax.activity.create("import", message="Starting...")
    assert ax.activity.detail(db, agent_id).status == "queued"
    db.commit()  # where reads are repeatable, only the next transaction sees what others write
    ax.activity.update(agent_id, "Half of it", percentage=50)
    ax.activity.update(agent_id, "Still at it")
    detail = ax.activity.detail(db, agent_id)
    assert (detail.status, detail.percentage, detail.finished_at) == ("running", 50, None)
    db.commit()
    ax.activity.complete(agent_id, message="Done")
    assert lines(db, agent_id) == [
        ("queued", "Starting...", 0),
        ("running", "Half of it", 50),
        ("running", "Still at it", None),
        ("complete", "Done", 100),
    ]
    detail = ax.activity.detail(db, agent_id)
    assert (detail.status, detail.percentage) == ("complete", 100)
    assert detail.started_at is not None
    assert detail.finished_at is not None
    assert detail.elapsed_seconds is not None


def test_reports_with_a_session_are_part_of_its_transaction(db: Session) -> None:
    agent_id = ax.activity.create("import", session=db)
    ax.activity.update(agent_id, "Half of it", percentage=50, session=db)
    with Session(RUNTIME.engine) as other, pytest.raises(ax.ActivityNotFoundError):
        ax.activity.detail(other, agent_id)
    db.commit()
    assert [message for _, message, _ in lines(db, agent_id)] == ["Waiting to start.", "Half of it"]
    ax.activity.complete(agent_id, "Done", session=db)
    db.rollback()
    assert ax.activity.detail(db, agent_id).status == "running"
    ax.activity.error(agent_id, "no", session=db)
    db.commit()
    assert ax.activity.detail(db, agent_id).error == "no"
    with pytest.raises(ax.ActivityNotFoundError):
        ax.activity.update(uuid4(), "Nobody", session=db)


def test_a_scoped_session_is_a_session_too(engine: Engine) -> None:
    scoped = scoped_session(sessionmaker(engine))
    agent_id = ax.activity.create("import", session=scoped)
    ax.activity.update(agent_id, "At it", session=scoped)
    scoped.commit()
    with Session(engine) as db:
        assert lines(db, agent_id)[-1] == ("running", "At it", None)
    scoped.remove()


async def test_reports_join_the_transaction_of_an_async_session(async_engine: AsyncEngine) -> None:
    async with AsyncSession(async_engine) as db:
        agent_id = await db.run_sync(lambda session: ax.activity.create("import", session=session))
        with pytest.raises(ax.UsageError, match=r"await db\.run_sync"):
            ax.activity.update(agent_id, "At it", session=db)  # ty: ignore[invalid-argument-type]
        await db.commit()
        assert (await ax.activity.detail(session=db, agent_id=agent_id)).status == "queued"  # ty: ignore


def test_queries_take_their_session_by_the_name_of_earlier_releases(db: Session) -> None:
    agent_id = ax.activity.create("import")
    queries: Any = ax.activity
    assert [item.agent_id for item in queries.list(session=db, page=1).items] == [agent_id]
    assert queries.detail(session=db, agent_id=agent_id).agent_id == agent_id
    assert queries.detail(db=db, agent_id=agent_id).agent_id == agent_id
    assert queries.active_count(session=db) == queries.count_active(db) == 1
    assert queries.cancel_pending(session=db) == 1
    with pytest.raises(TypeError, match="needs a session"):
        queries.list()


def test_an_activity_can_fail(db: Session) -> None:
    agent_id = ax.activity.create("import")
    ax.activity.update(agent_id, "Reading", percentage=30)
    ax.activity.error(agent_id, error="Failed: no such file")
    detail = ax.activity.detail(db, agent_id)
    assert (detail.status, detail.percentage, detail.error) == ("error", 30, "Failed: no such file")
    assert detail.logs[-1].message == "Task failed with error: Failed: no such file"


def test_default_messages_come_from_the_settings(db: Session) -> None:
    agent_id = ax.activity.create("import")
    ax.activity.complete(agent_id)
    assert [message for _, message, _ in lines(db, agent_id)] == [
        "Waiting to start.",
        "Task completed successfully.",
    ]


def test_an_activity_ends_once(db: Session) -> None:
    agent_id = ax.activity.create("import")
    ax.activity.complete(agent_id)
    ax.activity.error(agent_id, error="too late")
    ax.activity.update(agent_id, "too late", percentage=10)
    assert [status for status, _, _ in lines(db, agent_id)] == ["queued", "complete"]
    assert ax.activity.detail(db, agent_id).percentage == 100


@pytest.mark.parametrize(("given", "kept"), [(-5, 0), (150, 100), (33.7, 33), (None, 0)])
def test_a_percentage_is_limited_to_0_to_100(db: Session, given: Any, kept: int) -> None:
    agent_id = ax.activity.create("import")
    ax.activity.update(agent_id, "At it", percentage=given)
    assert ax.activity.detail(db, agent_id).percentage == kept


def test_a_message_of_any_kind_can_be_stored(db: Session) -> None:
    agent_id = ax.activity.create("import", message="\0")
    ax.activity.update(agent_id, "Zoë 研究 🚀 a\0b \ud800")
    ax.activity.update(agent_id, "x" * 100_000)
    messages = [message for _, message, _ in lines(db, agent_id)]
    assert messages[1].startswith("Zoë 研究 🚀 a")
    assert len(messages[2]) == 10_000


def test_an_unknown_agent_id_raises_activity_not_found(db: Session) -> None:
    unknown = uuid4()
    for call in (
        lambda: ax.activity.detail(db, unknown),
        lambda: ax.activity.update(unknown, "At it"),
        lambda: ax.activity.complete(unknown),
        lambda: ax.activity.error(unknown, error="Failed"),
    ):
        with pytest.raises(ax.ActivityNotFoundError, match=str(unknown)):
            call()


def test_text_that_is_not_an_agent_id_is_refused(db: Session) -> None:
    for call in (
        lambda: ax.activity.detail(db, "Acme"),
        lambda: ax.activity.update("Acme", "At it"),
        lambda: ax.activity.complete("Acme"),
        lambda: ax.get_result_sync("Acme"),
        lambda: ax.cancel_sync("Acme"),
    ):
        with pytest.raises(ax.UsageError, match="'Acme' is not an agent_id"):
            call()


# ---- the shape of the JSON ---------------------------------------------------------------------------------


def test_a_detail_has_the_shape_of_the_reference(db: Session) -> None:
    before = datetime.now(UTC)
    agent_id = ax.activity.create("research_company", message="Waiting to start", metadata={"tenant": "t1"})
    ax.activity.update(agent_id, "Gathering data", percentage=30)
    ax.activity.complete(agent_id, message="Done")
    detail = ax.activity.detail(db, agent_id=agent_id)
    data = json.loads(detail.model_dump_json())
    assert data["id"] == data["agent_id"] == str(agent_id)
    assert data["agent_type"] == data["task_name"] == "research_company"
    assert data["status"] == "complete"
    assert [(line["status"], line["message"], line["percentage"]) for line in data["logs"]] == [
        ("queued", "Waiting to start", 0),
        ("running", "Gathering data", 30),
        ("complete", "Done", 100),
    ]
    for moment in (data["created_at"], data["updated_at"], data["logs"][0]["created_at"]):
        assert moment.endswith("Z"), "times are in UTC and say so"
        assert before <= datetime.fromisoformat(moment) <= datetime.now(UTC)
    assert "metadata" not in data
    assert detail.metadata == {"tenant": "t1"}, "the application can read it"


def test_a_list_has_the_shape_of_the_reference(db: Session) -> None:
    agent_id = ax.activity.create("research_company", metadata={"tenant": "t1"})
    ax.activity.update(agent_id, "Gathering data", percentage=30)
    result = ax.activity.list(db, page=1, page_size=20)
    data = json.loads(result.model_dump_json())
    assert {name: data[name] for name in ("total", "page", "page_size", "total_pages")} == {
        "total": 1,
        "page": 1,
        "page_size": 20,
        "total_pages": 1,
    }
    [item] = data["items"]
    assert {name: item[name] for name in ("agent_id", "agent_type", "status", "percentage")} == {
        "agent_id": str(agent_id),
        "agent_type": "research_company",
        "status": "running",
        "percentage": 30,
    }
    assert item["latest_log_message"] == "Gathering data"
    assert "metadata" not in item
    assert result.items[0].metadata == {"tenant": "t1"}


# ---- queries -----------------------------------------------------------------------------------------------


def test_pages_have_every_activity_once(db: Session) -> None:
    created = {ax.activity.create("import") for _ in range(7)}
    pages = [ax.activity.list(db, page=number, page_size=3) for number in (1, 2, 3, 4)]
    assert [len(page.items) for page in pages] == [3, 3, 1, 0]
    assert {item.agent_id for page in pages for item in page.items} == created
    assert {(page.total, page.total_pages) for page in pages} == {(7, 3)}


def test_an_empty_record_has_no_pages(db: Session) -> None:
    assert ax.activity.list(db).model_dump(mode="json") == {
        "items": [],
        "total": 0,
        "page": 1,
        "page_size": 50,
        "total_is_exact": True,
        "next_cursor": None,
        "total_pages": 0,
    }


def test_running_activities_come_first_then_queued_ones_then_the_newest(db: Session) -> None:
    old, new, queued, running = (ax.activity.create(name) for name in ("old", "new", "queued", "running"))
    ax.activity.complete(old)
    ax.activity.complete(new)
    ax.activity.update(running, "At it")
    assert [item.agent_type for item in ax.activity.list(db).items] == ["running", "queued", "new", "old"]
    assert queued in {item.agent_id for item in ax.activity.list(db, status="queued").items}


def test_lists_are_filtered_by_status_and_task_name(db: Session) -> None:
    done, failed = ax.activity.create("import"), ax.activity.create("import")
    ax.activity.create("export")
    ax.activity.complete(done)
    ax.activity.error(failed, error="Failed")
    assert [item.agent_id for item in ax.activity.list(db, status=ax.Status.COMPLETE).items] == [done]
    assert [item.agent_id for item in ax.activity.list(db, status="error").items] == [failed]
    assert ax.activity.list(db, task_name="import").total == 2
    assert ax.activity.list(db, agent_type="import").total == 2
    assert ax.activity.list(db, agent_type="import", task_name="import").total == 2
    with pytest.raises(ax.UsageError, match="either task_name= or agent_type="):
        ax.activity.list(db, agent_type="import", task_name="export")
    assert ax.activity.list(db, agent_type="import", status="queued").total == 0


@pytest.mark.parametrize(("page", "page_size"), [(0, 10), (1, 0), (1, 1001), (-1, 10)])
def test_invalid_pages_are_refused(db: Session, page: int, page_size: int) -> None:
    with pytest.raises(ax.UsageError, match=r"page.*= must be"):
        ax.activity.list(db, page=page, page_size=page_size)


def test_an_unknown_status_is_refused(db: Session) -> None:
    with pytest.raises(ax.UsageError, match="There is no status 'done'; the statuses are queued, running"):
        ax.activity.list(db, status="done")


def test_active_activities_are_queued_or_running(db: Session) -> None:
    running, complete, failed = (ax.activity.create("import", metadata={"tenant": "t1"}) for _ in range(3))
    ax.activity.create("import")
    ax.activity.update(running, "At it")
    ax.activity.complete(complete)
    ax.activity.error(failed, error="Failed")
    assert ax.activity.active_count(db) == ax.activity.count_active(db) == 2
    assert ax.activity.active_count(db, metadata_filter={"tenant": "t1"}) == 1


def test_cancel_pending_cancels_queued_activities_but_not_running_ones(db: Session) -> None:
    pending = [ax.activity.create("import", metadata={"tenant": name}) for name in ("t1", "t1", "t2")]
    running = ax.activity.create("import")
    ax.activity.update(running, "At it")
    assert ax.activity.cancel_pending(db, metadata_filter={"tenant": "t2"}) == 1
    assert ax.activity.cancel_pending(db) == 2
    assert ax.activity.cancel_pending(db) == 0
    with Session(RUNTIME.engine) as other:
        assert {str(ax.activity.detail(other, agent_id).status) for agent_id in pending} == {"canceled"}, (
            "committed"
        )
        assert ax.activity.detail(other, running).status == "running"
    assert ax.activity.detail(db, pending[0]).finished_at is not None


@pytest.mark.parametrize(
    ("metadata", "matching", "other"),
    [
        ({"tenant": "t1"}, {"tenant": "t1"}, {"tenant": "t2"}),
        ({"tenant": "1"}, {"tenant": "1"}, {"tenant": "01"}),
        ({"number": 7}, {"number": 7}, {"number": 8}),
        ({"share": 0.5}, {"share": 0.5}, {"share": 0.25}),
        ({"paid": True}, {"paid": True}, {"paid": False}),
        ({"tenant": "t1", "user": "u1"}, {"tenant": "t1", "user": "u1"}, {"tenant": "t1", "user": "u2"}),
        ({"tenant": "t1"}, {}, {"absent": "t1"}),
        ({"team.name": "a"}, {"team.name": "a"}, {"team": "a"}),
        ({"the 'team'": "it's"}, {"the 'team'": "it's"}, {"the 'team'": "its"}),
        ({"t": "Zoë 研究 🚀 100%_"}, {"t": "Zoë 研究 🚀 100%_"}, {"t": "Zoë 研究 🚀 100%%"}),
    ],
    ids=lambda value: json.dumps(value, ensure_ascii=False),
)
def test_metadata_is_filtered_by_value(
    db: Session, metadata: dict[str, Any], matching: dict[str, Any], other: dict[str, Any]
) -> None:
    agent_id = ax.activity.create("import", metadata=metadata)
    ax.activity.create("import")
    assert agent_id in {item.agent_id for item in ax.activity.list(db, metadata_filter=matching).items}
    assert ax.activity.detail(db, agent_id, metadata_filter=matching).agent_id == agent_id
    assert ax.activity.list(db, metadata_filter=other).total == 0
    with pytest.raises(ax.ActivityNotFoundError):
        ax.activity.detail(db, agent_id, metadata_filter=other)


def test_metadata_of_another_json_type_does_not_match(db: Session) -> None:
    ax.activity.create("import", metadata={"tenant": "words"})
    ax.activity.create("import", metadata={"tenant": [1, 2]})
    ax.activity.create("import", metadata={"tenant": None})
    wanted = ax.activity.create("import", metadata={"tenant": 7})
    found = ax.activity.list(db, metadata_filter={"tenant": 7})
    assert [item.agent_id for item in found.items] == [wanted]
    assert ax.activity.list(db, metadata_filter={"tenant": 8.5}).total == 0
    assert ax.activity.list(db, metadata_filter={"tenant": True}).total == 0


def test_a_metadata_filter_with_a_list_is_refused(db: Session) -> None:
    with pytest.raises(ax.UsageError, match=r"metadata_filter\['tenant'\]"):
        ax.activity.list(db, metadata_filter={"tenant": ["t1"]})


# ---- AsyncSession ------------------------------------------------------------------------------------------


async def test_every_query_can_be_awaited_with_an_async_session(async_engine: AsyncEngine) -> None:
    agent_id = ax.activity.create("import", metadata={"tenant": "t1"})
    ax.activity.update(agent_id, "At it", percentage=10)
    ax.activity.create("import")
    async with AsyncSession(async_engine) as db:
        page = await ax.activity.list(db, page=1, page_size=1)
        assert (page.total, page.total_pages, page.items[0].agent_id) == (2, 2, agent_id)
        assert (await ax.activity.list(db, metadata_filter={"tenant": "t1"})).total == 1
        detail = await ax.activity.detail(db, agent_id=agent_id)
        assert [line.message for line in detail.logs] == ["Waiting to start.", "At it"]
        assert await ax.activity.active_count(db) == await ax.activity.count_active(db) == 2
        assert await ax.activity.cancel_pending(db) == 1
        assert await ax.activity.active_count(db) == 1
        with pytest.raises(ax.ActivityNotFoundError):
            await ax.activity.detail(db, uuid4())


async def test_enqueue_works_with_the_users_async_engine(async_engine: AsyncEngine) -> None:
    task = await ax.enqueue("work", {"company": "Acme"})
    async with AsyncSession(async_engine) as db:
        assert (await ax.activity.detail(db, task.agent_id)).status == "queued"

"""Threads that wait on MariaDB wake up when another process has committed something for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, insert, text

from agentexec.db.engine import open_engine
from agentexec.state.sql_backend import polled_wakeup
from agentexec.state.sql_backend.polled_wakeup import MysqlWakeup
from agentexec.state.sql_backend.wakeup import mail
from agentexec.state.sql_models import Message, QueueEntry
from tests.waiting import wait_until

LONG = 30.0


@pytest.fixture
def engine(mariadb_tables: str) -> Iterator[Engine]:
    engine = open_engine(mariadb_tables)
    yield engine
    engine.dispose()


@pytest.fixture(params=["MariaDB", "MySQL"])
def wakeup(request: pytest.FixtureRequest, engine: Engine) -> Iterator[MysqlWakeup]:
    """A wakeup on MariaDB, and one that takes it for MySQL."""
    engine.connect().close()
    engine.dialect.is_mariadb = request.param == "MariaDB"  # type: ignore[attr-defined]
    wakeup = MysqlWakeup(engine)
    yield wakeup
    wakeup.close()


@pytest.fixture
def other(engine: Engine) -> Iterator[Engine]:
    """The database as another process sees it."""
    other = create_engine(engine.url)
    yield other
    other.dispose()


def push(engine: Engine, queue: str, *, lane: int = 1) -> None:
    values = {"agent_id": uuid4(), "priority": 0, "lane": lane, "at": 0, "epoch": 0}
    with engine.begin() as connection:
        connection.execute(insert(QueueEntry).values(queue=queue, **values))


def test_a_commit_of_another_process_wakes_those_whom_it_concerns(wakeup: MysqlWakeup, other: Engine) -> None:
    wakeup.note_queues(["default", "second"])
    with ThreadPoolExecutor(2) as threads:
        for_tasks = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        for_mail = threads.submit(wakeup.wait, wakeup.mark(mail("me")), LONG, mail("me"))
        push(other, "third")
        for mailbox in ("other", "me"):
            with other.begin() as connection:
                connection.execute(insert(Message).values(mailbox=mailbox, text="done", sent_at=0))
        for_mail.result(LONG / 2)
        assert not for_tasks.done(), "nothing is on the queue"
        push(other, "second")
        for_tasks.result(LONG / 2)


def test_it_asks_on_after_its_connection_was_killed(wakeup: MysqlWakeup, other: Engine) -> None:
    wakeup.note_queues(["default"])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        with other.connect() as connection:
            query = "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db = DATABASE()"
            for number in connection.execute(text(query)).scalars().all():
                connection.exec_driver_sql(f"KILL {number}")
        push(other, "default")
        waiting.result(LONG / 2)


SLEEPERS = (
    "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND state = 'User sleep'"
)


def test_mariadb_looks_by_itself_and_holds_up_nobody_who_changes_a_table(
    engine: Engine, other: Engine
) -> None:
    wakeup = MysqlWakeup(engine)
    wakeup.note_queues(["default"])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        with other.connect() as connection:
            wait_until(lambda: connection.exec_driver_sql(SLEEPERS).scalar())
            connection.exec_driver_sql("SET SESSION lock_wait_timeout = 1")
            connection.exec_driver_sql(f"ALTER TABLE {QueueEntry.__tablename__} COMMENT 'changed'")
        push(other, "default")
        waiting.result(LONG / 2)
    wakeup.close()


def test_a_server_that_does_not_know_the_statement_is_asked_as_mysql_is(
    wakeup: MysqlWakeup, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polled_wakeup, "LOOK_UNTIL_FOUND", "BEGIN UNKNOWN {columns} {pause} {looks}")
    wakeup.note_queues(["default"])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        push(other, "default")
        waiting.result(LONG / 2)

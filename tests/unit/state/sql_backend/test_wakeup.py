"""A change wakes the threads that wait, within a process and between processes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, exc, insert

from agentexec.db.base import Base
from agentexec.db.engine import open_engine
from agentexec.state.sql_backend.polled_wakeup import MysqlWakeup, PollingWakeup, make_wakeup
from agentexec.state.sql_backend.wakeup import (
    MAX_POLL_PAUSE,
    PostgresWakeup,
    SqliteWakeup,
    Wakeup,
    mail,
)
from agentexec.state.sql_models import Message, QueueEntry

LONG = 30.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'agentexec.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE number (value INTEGER)")
    yield engine
    engine.dispose()


@pytest.fixture
def wakeup(engine: Engine) -> Iterator[Wakeup]:
    wakeup = make_wakeup(engine)
    yield wakeup
    wakeup.close()


def test_each_database_has_its_quickest_wakeup(wakeup: Wakeup) -> None:
    assert isinstance(wakeup, SqliteWakeup)
    assert isinstance(make_wakeup(open_engine("postgresql://user@host/name")), PostgresWakeup)
    assert isinstance(make_wakeup(open_engine("mysql://user@host/name")), MysqlWakeup)


def test_a_change_before_the_wait_ends_it_immediately(wakeup: Wakeup) -> None:
    mark = wakeup.mark()
    wakeup.announce()
    started = time.monotonic()
    wakeup.wait(mark, LONG)
    assert time.monotonic() - started < LONG / 2


def test_a_change_of_this_process_ends_a_wait(wakeup: Wakeup) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        wakeup.announce()
        waiting.result(LONG / 2)


def test_a_commit_of_another_process_wakes_those_whom_it_concerns(wakeup: Wakeup, engine: Engine) -> None:
    Base.metadata.create_all(engine)
    other = create_engine(engine.url)
    wakeup.note_queues(["default"])
    with ThreadPoolExecutor(2) as threads:
        for_tasks = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        for_mail = threads.submit(wakeup.wait, wakeup.mark(mail("me")), LONG, mail("me"))
        for mailbox in ("other", "me"):
            with other.begin() as connection:
                connection.execute(insert(Message).values(mailbox=mailbox, text="done", sent_at=0))
        for_mail.result(LONG / 2)
        assert not for_tasks.done(), "nothing is on the queue"
        with other.begin() as connection:
            values = {"agent_id": uuid4(), "priority": 0, "lane": 1, "at": 0, "epoch": 0}
            connection.execute(insert(QueueEntry).values(queue="default", **values))
        for_tasks.result(LONG / 2)
    other.dispose()


def test_a_commit_wakes_everybody_where_the_tables_cannot_be_read(wakeup: Wakeup, engine: Engine) -> None:
    other = create_engine(engine.url)
    wakeup.note_queues(["default"])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        with other.begin() as connection:
            connection.exec_driver_sql("INSERT INTO number VALUES (1)")
        waiting.result(LONG / 2)
    other.dispose()


def test_a_closed_wakeup_ends_a_wait_and_may_be_used_again(wakeup: Wakeup) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wakeup.wait, wakeup.mark(), LONG)
        wakeup.close()
        waiting.result(LONG / 2)
    test_a_change_of_this_process_ends_a_wait(wakeup)


def test_polling_pauses_briefly_and_longer_after_idle_time(engine: Engine) -> None:
    polling = PollingWakeup(engine)
    mark = polling.mark()
    started = time.monotonic()
    polling.wait(mark, LONG)
    assert time.monotonic() - started < LONG / 2, "a wait is at most a pause"
    polling._idle_since = time.monotonic() - LONG
    started = time.monotonic()
    polling.wait(mark, LONG)
    assert time.monotonic() - started >= MAX_POLL_PAUSE * 0.9


def test_an_interrupted_listener_reports_the_outage_once_and_its_end(
    engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener(PostgresWakeup):
        """Fails twice, then listens."""

        tries = 0
        listening = threading.Event()

        def _listen(self, outage) -> None:
            self.tries += 1
            if self.tries < 3:
                raise exc.OperationalError("LISTEN", None, Exception())
            outage.recovered()
            self._note_change()
            self.listening.set()
            self._closed = True

    monkeypatch.setattr("agentexec.outage.backoff", lambda failures, **limits: 0.0)
    with caplog.at_level(logging.INFO, "agentexec.state"):
        listener = Listener(engine)
        listener.mark()
        assert listener.listening.wait(LONG)
    assert caplog.messages == [
        "Listening on the database was interrupted: OperationalError.",
        "Listening on the database again.",
    ]

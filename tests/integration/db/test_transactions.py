"""Transactions that compete with others, on real databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from agentexec.db.deadlocks import DEADLOCK_TRIES, retry_on_deadlock
from agentexec.db.engine import open_engine
from agentexec.db.transactions import reading, writing
from agentexec.errors import UnavailableError
from tests.waiting import patient

LOST = OperationalError("DELETE", {}, Exception(1213, "Deadlock found"))


class TestDeadlocks:
    @pytest.fixture
    def engine(self, database_url: str):
        engine = open_engine(database_url)
        with writing(engine) as connection:
            connection.execute(text("CREATE TABLE pair (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)"))
            connection.execute(text("INSERT INTO pair VALUES (1, 0), (2, 0)"))
        yield engine
        engine.dispose()

    def test_a_transaction_that_lost_a_deadlock_runs_again(self, engine):
        both_locked = threading.Barrier(2)
        starts: list[int] = []
        failures: list[BaseException] = []

        @retry_on_deadlock
        def add(first: int, second: int) -> None:
            starts.append(first)
            meets_other = len(starts) <= 2 and engine.dialect.name != "sqlite"
            with writing(engine) as connection:
                for row in (first, second):
                    connection.execute(text("UPDATE pair SET value = value + 1 WHERE id = :id"), {"id": row})
                    if meets_other and row == first:
                        both_locked.wait(10)

        def run(first: int, second: int) -> None:
            try:
                add(first, second)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=order) for order in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patient(30))

        assert not failures
        with reading(engine) as connection:
            assert connection.execute(text("SELECT value FROM pair ORDER BY id")).scalars().all() == [2, 2]
        # SQLite has one writer at a time, so neither loses; elsewhere the loser may, rarely, lose again.
        assert len(starts) == 2 if engine.dialect.name == "sqlite" else 3 <= len(starts) < 2 + DEADLOCK_TRIES

    def test_a_sqlite_file_in_use_is_opened_and_switched_to_wal_later(self, tmp_path):
        url = f"sqlite:///{tmp_path / 'used.db'}"
        plain = create_engine(url)
        with plain.begin() as connection:
            connection.execute(text("CREATE TABLE pair (id INTEGER PRIMARY KEY)"))
            connection.execute(text("INSERT INTO pair VALUES (1)"))
            engine = open_engine(url)
            with engine.connect() as other:
                assert other.execute(text("PRAGMA journal_mode")).scalar() == "delete"
        engine.dispose()
        with engine.connect() as later:
            assert later.execute(text("PRAGMA journal_mode")).scalar() == "wal"

    def test_a_part_of_anothers_transaction_does_not_run_again(self, engine):
        """A deadlock ends the whole transaction: its owner runs it again, with what else belongs to it."""
        calls: list[object] = []

        @retry_on_deadlock
        def lose(*, transaction: object = None) -> None:
            calls.append(transaction)
            raise UnavailableError("A deadlock.") from LOST

        with pytest.raises(UnavailableError):
            lose(transaction=engine)
        assert calls == [engine]
        with pytest.raises(UnavailableError):
            lose()
        assert len(calls) == 1 + DEADLOCK_TRIES

    def test_another_outage_is_not_retried(self, engine):
        calls = 0

        @retry_on_deadlock
        def fail() -> None:
            nonlocal calls
            calls += 1
            raise UnavailableError("The database is away.")

        with pytest.raises(UnavailableError):
            fail()
        assert calls == 1

"""Errors of databases, in words that name the database and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import exc

from agentexec.db.engine import open_engine
from agentexec.db.errors import loses_transaction, translating_db_errors
from agentexec.db.transactions import writing
from agentexec.errors import UnavailableError, UsageError


def test_a_database_file_that_cannot_be_opened_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.db").mkdir()
    for name, reason in (
        ("missing/file.db", f"the folder {tmp_path}/missing does not exist"),
        ("folder.db", "it is a folder"),
    ):
        engine = open_engine(f"sqlite:///{name}")
        with pytest.raises(UnavailableError) as caught, translating_db_errors(engine), engine.connect():
            pass
        assert str(caught.value) == f"The database sqlite:///{tmp_path}/{name} cannot be used: {reason}."


class DriverError(Exception):
    sqlstate: str | None = None


@pytest.mark.parametrize("state", ["25006", "26000", "40001", "53100", "57P01", "08006", "55P03"])
def test_an_error_that_the_server_will_recover_from_is_an_outage(tmp_path: Path, state: str) -> None:
    original = DriverError("no")
    original.sqlstate = state
    with pytest.raises(UnavailableError), translating_db_errors(open_engine(f"sqlite:///{tmp_path}/x.db")):
        raise exc.InternalError("UPDATE", None, original)


@pytest.mark.parametrize("number", [1290, 1836, 1213, 1021])
def test_mysqls_numbers_mean_the_same(tmp_path: Path, number: int) -> None:
    with pytest.raises(UnavailableError), translating_db_errors(open_engine(f"sqlite:///{tmp_path}/x.db")):
        raise exc.InternalError("UPDATE", None, DriverError(number, "no"))


@pytest.mark.parametrize(
    ("reason", "kind", "advice"),
    [
        ("cannot execute SELECT in a read-only transaction", exc.InternalError, "use the primary"),
        ("Running in read-only mode", exc.OperationalError, "use the primary"),
        ("attempt to write a readonly database", exc.OperationalError, "makes it read-only from the URL"),
        ("permission denied for table agentexec_meta", exc.ProgrammingError, "Grant the role of the URL"),
        ("must be owner of table agentexec_meta", exc.ProgrammingError, "Use the role that owns"),
    ],
)
def test_a_refusal_of_writes_says_what_to_do(
    tmp_path: Path, reason: str, kind: type[exc.DBAPIError], advice: str
) -> None:
    original = DriverError(reason)
    original.sqlstate = "25006" if kind is exc.InternalError else None
    engine = open_engine(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises((UnavailableError, UsageError), match=advice), translating_db_errors(engine):
        raise kind("UPDATE", None, original)


@pytest.mark.parametrize(("state", "kind"), [("22P02", exc.DataError), ("23505", exc.IntegrityError)])
def test_an_error_about_the_data_is_none(tmp_path: Path, state: str, kind: type[exc.DBAPIError]) -> None:
    original = DriverError("no")
    original.sqlstate = state
    with pytest.raises(kind), translating_db_errors(open_engine(f"sqlite:///{tmp_path}/x.db")):
        raise kind("UPDATE", None, original)


@pytest.mark.parametrize(
    ("state", "contended"),
    [("55P03", True), ("53300", True), ("57P01", False), ("25006", False), ("08006", False)],
)
def test_an_outage_says_whether_others_hold_what_is_needed(
    tmp_path: Path, state: str, contended: bool
) -> None:
    original = DriverError("no")
    original.sqlstate = state
    engine = open_engine(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(UnavailableError) as caught, translating_db_errors(engine):
        raise exc.OperationalError("UPDATE", None, original)
    assert caught.value.contended == contended


def test_a_locked_sqlite_file_is_held_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentexec.db.sqlite.BUSY_TIMEOUT_MS", 1)
    engine = open_engine(f"sqlite:///{tmp_path}/x.db")
    with writing(engine), pytest.raises(UnavailableError, match="locked") as caught, writing(engine):
        pass
    assert caught.value.contended


@pytest.mark.parametrize(
    ("state", "lost"),
    [("57P01", True), ("40P01", True), ("25006", True), ("57014", False), ("55P03", False), ("23505", False)],
)
def test_a_transaction_is_repeated_after_errors_that_are_not_its_own(state: str, lost: bool) -> None:
    """A statement that took too long, or did not wait for a lock, would do so again."""
    original = DriverError("no")
    original.sqlstate = state
    assert loses_transaction(exc.OperationalError("UPDATE", None, original)) == lost

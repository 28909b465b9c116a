"""Engines that agentexec opens."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event

from agentexec.db.base import Base
from agentexec.db.engine import open_engine
from agentexec.db.lock_limits import OPTION, engine_for_users, unlimit_session


def test_a_new_database_file_is_for_its_owner_only(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/private.db")
    assert not list(tmp_path.iterdir()), "nothing is created before the first connection"
    with engine.connect() as connection:
        Base.metadata.create_all(connection)
        files = sorted(tmp_path.glob("private.db*"))
        assert len(files) == 3, "the database and its journals"
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_the_mode_of_an_existing_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "shared.db"
    file.touch()
    file.chmod(0o660)
    with open_engine(f"sqlite:///{file}").connect():
        pass
    assert file.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_users_get_one_engine_with_the_pool_of_ours_and_without_limits(kind: str) -> None:
    engine = open_engine(f"{kind}://root@127.0.0.1:1/test")
    for_users = engine_for_users(engine)
    assert engine_for_users(engine) is for_users
    assert for_users.pool is engine.pool
    assert engine.get_execution_options()[OPTION]
    assert not for_users.get_execution_options()[OPTION]
    assert event.contains(for_users, "engine_connect", unlimit_session)
    assert not event.contains(engine, "engine_connect", unlimit_session)


def test_on_other_databases_users_get_our_engine() -> None:
    engine = open_engine("sqlite://")
    assert engine_for_users(engine) is engine


def test_the_connection_to_sqlite_that_was_used_last_is_used_next(tmp_path: Path) -> None:
    """It knows the pages that it has read."""
    engine = open_engine(f"sqlite:///{tmp_path / 'agentexec.db'}")
    with engine.connect() as last, engine.connect():
        used = last.connection.dbapi_connection
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is used
    engine.dispose()

"""Engines that agentexec opens."""

from __future__ import annotations

from pathlib import Path

from agentexec.db.base import Base
from agentexec.db.engine import open_engine


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

"""Errors of databases, in words that name the database and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentexec.db.engine import open_engine
from agentexec.db.errors import translating_db_errors
from agentexec.errors import UnavailableError


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

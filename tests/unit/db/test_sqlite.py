"""SQLite files: the reason why one cannot be opened, and the turns of those who write."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agentexec.db.engine import open_engine
from agentexec.db.sqlite import file_problem
from agentexec.db.transactions import writing


def test_a_problem_with_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file.db"
    assert file_problem(file) is None
    file.touch()
    assert file_problem(file) is None
    assert file_problem(tmp_path) == "it is a folder"
    assert file_problem(tmp_path / "no" / "file.db") == f"the folder {tmp_path / 'no'} does not exist"


def test_a_file_without_permissions_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser, who often runs tests, may do everything, so the answers of the system are given here."""
    file = tmp_path / "file.db"
    allowed: dict[Path, bool] = {}
    monkeypatch.setattr(os, "access", lambda path, mode: allowed.get(path, True))
    allowed[tmp_path] = False
    assert file_problem(file) == f"the folder {tmp_path} cannot be written"
    file.touch()
    assert (
        file_problem(file) == f"the folder {tmp_path} cannot be written, and SQLite keeps its journal there"
    )
    allowed[file] = False
    assert file_problem(file) == "this user may not read and write the file"


def test_a_thread_that_waits_for_another_one_to_write_does_not_sleep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.db.sqlite.BUSY_STEP", 3600.0)
    engine = open_engine(f"sqlite:///{tmp_path}/x.db")
    asked = threading.Event()

    def write() -> None:
        asked.set()
        with writing(engine):
            pass

    thread = threading.Thread(target=write, daemon=True)
    with writing(engine):
        thread.start()
        asked.wait()
    thread.join(30)
    assert not thread.is_alive()

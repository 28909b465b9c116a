"""The kernel's reports of writes to one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentexec.state.sql_backend.file_watch import FileWatch


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[FileWatch, Path]]:
    path = tmp_path / "agentexec.db-wal"
    watch = FileWatch.open(path)
    assert watch is not None
    yield watch, path
    watch.close()


def test_a_write_to_the_file_ends_the_wait(watched: tuple[FileWatch, Path]) -> None:
    watch, path = watched
    path.write_bytes(b"commit")
    assert watch.wait(5.0)


def test_a_write_to_another_file_of_the_folder_does_not_count(watched: tuple[FileWatch, Path]) -> None:
    watch, path = watched
    path.with_name("agentexec.db").write_bytes(b"page")
    assert not watch.wait(5.0)


def test_the_file_may_be_removed_and_created_again(watched: tuple[FileWatch, Path]) -> None:
    watch, path = watched
    path.write_bytes(b"commit")
    assert watch.wait(5.0)
    path.unlink()
    path.write_bytes(b"commit")
    assert watch.wait(5.0)


def test_without_a_write_the_wait_times_out(watched: tuple[FileWatch, Path]) -> None:
    watch, _ = watched
    assert not watch.wait(0.01)


def test_a_folder_that_does_not_exist_cannot_be_watched(tmp_path: Path) -> None:
    assert FileWatch.open(tmp_path / "missing" / "agentexec.db-wal") is None

"""Copies of folders at every record of a task, so that a test can continue from any of them as after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import delete, insert, select

from agentexec.journal.models import JournalEntry
from agentexec.journal.stores import journal_store
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

JOURNAL: Any = JournalEntry.__table__


class Instants:
    """The instants before and after each append to the journal: the rows that were there, and the folders' contents."""

    def __init__(self, task: ReplayableTask, copies: Path, *folders: Path) -> None:
        self._task = task
        self._copies = copies
        self._folders = folders
        self._rows: list[list[dict[str, Any]]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Take a copy at each instant of the block."""
        store: Any = type(journal_store())
        append = store.append_together

        def copying(*arguments: Any) -> frozenset[int]:
            self._take()
            recorded: frozenset[int] = append(*arguments)
            self._take()
            return recorded

        with mock.patch.object(store, "append_together", copying):
            yield

    def __len__(self) -> int:
        """Return the number of instants."""
        return len(self._rows)

    def count(self, instant: int, path: str, kind: str) -> int:
        """Return the number of rows of a kind that a path had at an instant."""
        return sum((row["path"], row["kind"]) == (path, kind) for row in self._rows[instant])

    def has(self, instant: int, path: str, kind: str) -> bool:
        return self.count(instant, path, kind) > 0

    def value(self, instant: int, path: str) -> Any:
        """Return the latest recorded value of a path at an instant."""
        return max(
            (row["seq"], json.loads(row["value"])) for row in self._rows[instant] if row["path"] == path
        )[1]

    def restore(self, instant: int) -> None:
        """Make journal and folders as they were at an instant."""
        with RUNTIME.engine.begin() as connection:
            connection.execute(delete(JOURNAL).where(JOURNAL.c.agent_id == self._task.agent_id))
            if self._rows[instant]:
                connection.execute(insert(JOURNAL), self._rows[instant])
        for number, folder in enumerate(self._folders):
            shutil.rmtree(folder, ignore_errors=True)
            copy = self._copies / str(instant) / str(number)
            if copy.exists():
                shutil.copytree(copy, folder, symlinks=True)

    def _take(self) -> None:
        place = self._copies / str(len(self))
        query = select(JOURNAL).where(JOURNAL.c.agent_id == self._task.agent_id)
        with RUNTIME.engine.connect() as connection:
            self._rows.append([dict(row) for row in connection.execute(query).mappings()])
        place.mkdir(parents=True)
        for number, folder in enumerate(self._folders):
            if folder.exists():
                shutil.copytree(folder, place / str(number), symlinks=True)

"""Sandbox sweep: each host removes the workspaces and containers of tasks that have ended without removing them."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, select

from agentexec.activity.models import Activity
from agentexec.db.chunks import chunks
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.runners.sandbox_folders import remove_sandbox, tasks_with_sandboxes
from agentexec.task import ACTIVE_STATUSES

log = logging.getLogger("agentexec.maintenance")

INTERVAL = 5.0
"""Seconds between two looks at the folder. Without sandboxes, a look is one system call."""


class SandboxSweep:
    """Removes what ended tasks left on this host, in a thread of its own: a workspace may be large."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next = 0.0
        self._reported: set[Path] = set()
        self._thread: threading.Thread | None = None

    def run_if_due(self, clock: float) -> None:
        """Start a sweep if the last one is long enough ago and has ended; `clock` is monotonic."""
        if clock < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._next = clock + INTERVAL
        sandboxes = tasks_with_sandboxes()
        if sandboxes:
            self._thread = threading.Thread(
                target=self._sweep, args=(sandboxes,), name="sandbox-sweep", daemon=True
            )
            self._thread.start()

    def run(self) -> None:
        """Remove what ended tasks left, before this returns."""
        self._sweep(tasks_with_sandboxes())

    def _sweep(self, sandboxes: dict[UUID, list[Path]]) -> None:
        try:
            ended = _ended(self._engine, list(sandboxes))
        except UnavailableError:
            return
        for agent_id in ended:
            for entry in sandboxes[agent_id]:
                self._remove(agent_id, entry)

    def _remove(self, agent_id: UUID, entry: Path) -> None:
        try:
            remove_sandbox(agent_id, entry)
        except Exception as error:
            if entry not in self._reported:
                self._reported.add(entry)
                log.warning(
                    "The sandbox %s of task %s, which has ended, cannot be removed (%s); remove it by hand.",
                    entry,
                    agent_id,
                    error,
                )
        else:
            log.info("Removed the sandbox %s of task %s, which has ended.", entry, agent_id)


def _ended(engine: Engine, agent_ids: list[UUID]) -> list[UUID]:
    """Return the tasks that have ended. One that the record does not know may belong to another deployment."""
    found: list[UUID] = []
    for chunk in chunks(agent_ids):
        query = select(Activity.agent_id).where(
            Activity.agent_id.in_(chunk), Activity.status.not_in(ACTIVE_STATUSES)
        )
        with reading(engine) as connection:
            found.extend(connection.execute(query).scalars())
    return found

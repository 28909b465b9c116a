"""Versions of code: which one a run began with, and who may run it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME


class Pool:
    """A pool with a task that has a version of its own, and one that has none."""

    def __init__(self) -> None:
        self.pool = ax.Pool()
        self.failing = True

        @self.pool.task("report", version="r1")
        async def report(agent_id: UUID, context: dict[str, Any]) -> None:
            """Do nothing."""

        @self.pool.task("research")
        async def research(agent_id: UUID, context: dict[str, Any]) -> None:
            if self.failing:
                raise ValueError("not yet")


def version_of(task: Any) -> str | None:
    with Session(RUNTIME.engine) as db:
        return ax.activity.detail(db, task.agent_id).version


def test_the_record_has_the_version_that_a_run_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ax.CONF, "worker_version", "7")
    world = Pool()
    with ax.testing.harness(world.pool) as harness:
        assert version_of(harness.run("report")) == "r1"
        failed = harness.run("research")
        assert (failed.status, version_of(failed)) == (ax.Status.ERROR, "7")
        world.failing = False
        ax.retry_sync(failed.agent_id)
        assert version_of(failed) is None, "whoever takes it may run it"
        harness.run_all()
        assert version_of(failed) == "7"


def test_without_a_version_the_record_has_none() -> None:
    world = Pool()
    with ax.testing.harness(world.pool) as harness:
        assert version_of(harness.run("research")) is None

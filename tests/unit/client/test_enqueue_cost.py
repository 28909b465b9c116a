"""Many tasks accepted together stay cheap: what they share is checked once.

Calls of Python functions are counted, because their number does not depend on the machine or its load.
"""

from __future__ import annotations

from pathlib import Path

import agentexec as ax
from agentexec.db.engine import open_engine
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.state.sql_backend import SqlBackend
from tests.unit.worker.test_cost import counting_calls

TASKS = 500

HIGHEST_NUMBER_OF_CALLS = 65
"""Calls for one task of `enqueue_many` on SQLite. On Python 3.11 there are 55."""


def test_many_tasks_make_few_calls(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'many.db'}")
    ax.Base.metadata.create_all(engine)
    contexts = [{"number": number} for number in range(TASKS)]
    with RUNTIME.replaced(engine, SqlBackend(engine), Registry()):
        for _ in range(2):
            ax.enqueue_many_sync("work", contexts)  # compiles the statements, and plans those that return
        with counting_calls() as calls:
            tasks = ax.enqueue_many_sync("work", contexts)
        claimed = RUNTIME.backend.claim(
            ax.CONF.queue_name, "w", limit=3 * TASKS, low_quota=0, lease_seconds=9
        )
    engine.dispose()
    assert calls.number / TASKS <= HIGHEST_NUMBER_OF_CALLS
    assert [lease.agent_id for lease in claimed.leases[-TASKS:]] == [task.agent_id for task in tasks]

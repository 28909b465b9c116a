"""The leader removes dead rows of a busy queue on PostgreSQL."""

from __future__ import annotations

from sqlalchemy import text

import agentexec as ax
from agentexec.runtime import RUNTIME
from agentexec.task import Entry, new_agent_id
from agentexec.worker.queue_vacuum import INTERVAL, QueueVacuum
from tests.waiting import wait_until

DEAD = text("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'agentexec_queue'")
QUEUE = "agentexec_tasks"
TASKS = 6000


def dead_rows() -> int:
    with RUNTIME.engine.connect() as connection:
        return int(connection.execute(DEAD).scalar_one())


def test_many_dead_rows_are_removed_and_few_are_left(postgres_tables: str) -> None:
    ax.configure(database_url=postgres_tables)
    try:
        with RUNTIME.engine.begin() as connection:
            connection.execute(text("TRUNCATE agentexec_queue"))
        vacuum = QueueVacuum(RUNTIME)
        assert not vacuum.run_if_due(0.0)
        RUNTIME.backend.push(QUEUE, [Entry(new_agent_id()) for _ in range(TASKS)])
        with RUNTIME.engine.begin() as connection:
            connection.execute(text("DELETE FROM agentexec_queue"))
        RUNTIME.engine.dispose()  # a connection that ends reports what it has changed
        wait_until(lambda: dead_rows() >= TASKS)
        assert not vacuum.run_if_due(INTERVAL - 1), "not due"
        assert vacuum.run_if_due(INTERVAL)
        wait_until(lambda: dead_rows() == 0)
        assert not vacuum.run_if_due(1000 * INTERVAL), "nothing left to remove"
    finally:
        RUNTIME.close()

"""A record in a SQLite file and a queue in memory: all that admission and lease renewal need of a deployment."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from sqlalchemy import create_engine, select, update

from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.activity.models import Activity
from agentexec.db.clock import utc_now
from agentexec.db.engine import prepare_engine
from agentexec.db.transactions import reading, writing
from agentexec.registry import Registry
from agentexec.runtime import Runtime
from agentexec.schema.tables import Base
from agentexec.state.memory_backend import MemoryBackend
from agentexec.task import Entry, Lease, Priority, Status, new_agent_id

QUEUE = "recorded"


class Record:
    """The record and the queue of a test."""

    def __init__(self, runtime: Runtime, backend: MemoryBackend) -> None:
        self.runtime = runtime
        self.backend = backend

    def enqueue(self, number: int) -> list[UUID]:
        tasks = [
            NewTask(new_agent_id(), "work", None, QUEUE, Priority.LOW, None, None, None, "Queued.")
            for _ in range(number)
        ]
        with writing(self.runtime.engine) as connection:
            insert_tasks(connection, tasks, utc_now())
        self.backend.push(QUEUE, [Entry(task.agent_id) for task in tasks])
        return [task.agent_id for task in tasks]

    def claim(self, limit: int = 100) -> list[Lease]:
        return self.backend.claim(QUEUE, "worker", limit=limit, low_quota=0, lease_seconds=60).leases

    def start(self, number: int) -> list[UUID]:
        """Enqueue tasks and make them RUNNING under leases of the worker "worker"."""
        tasks = self.enqueue(number)
        for agent_id, epoch in self.claim():
            self.change(agent_id, status=Status.RUNNING, epoch=epoch)
        return tasks

    def change(self, agent_id: UUID, **values: object) -> None:
        with writing(self.runtime.engine) as connection:
            connection.execute(update(Activity).where(Activity.agent_id == agent_id).values(**values))

    def statuses(self, agent_ids: Sequence[UUID]) -> list[Status]:
        with reading(self.runtime.engine) as connection:
            rows = connection.execute(select(Activity.agent_id, Activity.status)).all()
        found = {row.agent_id: row.status for row in rows}
        return [found[agent_id] for agent_id in agent_ids]


@contextmanager
def open_record(folder: Path) -> Generator[Record]:
    engine = prepare_engine(create_engine(f"sqlite:///{folder / 'record.db'}"))
    Base.metadata.create_all(engine)
    backend = MemoryBackend()
    runtime = Runtime()
    with runtime.replaced(engine, backend, Registry()):
        yield Record(runtime, backend)
    engine.dispose()

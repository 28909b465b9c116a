"""Harness that runs tasks inside a unit test: no worker process, no server, nothing left behind."""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.orm import Session

from agentexec.activity.mailbox import read_outcomes
from agentexec.activity.models import Activity
from agentexec.activity.queries.detail import detail
from agentexec.client.approvals import ApprovalSchema, list_approvals
from agentexec.client.enqueue import enqueue
from agentexec.client.new_task import EnqueueOptions
from agentexec.db.engine import prepare_engine
from agentexec.errors import UsageError
from agentexec.pool import Pool
from agentexec.runtime import RUNTIME
from agentexec.schema.tables import Base
from agentexec.state.memory_backend import MemoryBackend
from agentexec.task import Status, Task, agent_id_of
from agentexec.testing.exits import exits_contained
from agentexec.testing.inline import InlineWorker, SkippingClock
from agentexec.testing.loop_thread import LoopThread
from agentexec.testing.task_record import TaskRecord
from agentexec.testing.time_travel import TimeTravel

if TYPE_CHECKING:
    from agentexec.testing.scripted_model import AgentScript

T = TypeVar("T")
Context = BaseModel | Mapping[str, Any] | None

LOOK_SECONDS = 0.01
"""Seconds between two looks of a harness in the background for new tasks."""


class harness:  # noqa: N801 - users call it like a function
    """Context manager that runs a pool's tasks in a test, with its own database and queue.

        with ax.testing.harness(pool) as harness:
            task = harness.run("research", ResearchContext(company="Acme"))

    In an async test: `async with ax.testing.harness(pool) as harness`, and `await harness.run(...)`.

    One harness can be open at a time.

    Args:
        pool: The pool with the tasks.
        engine: Engine of the record's database, for handlers that enqueue in their own transactions (`session=`).
            agentexec's tables are created in it, and stay. By default the record is a file that is removed at the end.
        background: Run tasks as soon as they are enqueued, beside the test: in a thread, or with `async with` on the
            event loop of the test.

    Raises:
        UsageError: `with` is used while an event loop runs; use `async with`.
    """

    def __init__(self, pool: Pool, *, engine: Engine | None = None, background: bool = False) -> None:
        self._pool = pool
        self._engine = engine
        self._background = background

    def __enter__(self) -> Harness:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._sync = Harness(self._pool, self._engine, background=self._background)
            return self._sync
        raise UsageError("An event loop is running: write `async with ax.testing.harness(pool) as harness`.")

    def __exit__(self, *_exc: object) -> None:
        self._sync.close()

    async def __aenter__(self) -> AsyncHarness:
        self._async = AsyncHarness(self._pool, self._engine, background=self._background)
        return await self._async.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        await self._async.__aexit__(*exc)


class AsyncHarness:
    """Harness for async tests: runs tasks on the event loop of the test."""

    def __init__(self, pool: Pool, engine: Engine | None = None, *, background: bool = False) -> None:
        self._registry = pool.registry
        self._given_engine = engine
        self._in_background = background
        self._pump: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._model: AgentScript | None = None
        self._open = ExitStack()

    async def __aenter__(self) -> Self:
        self._registry.complete()
        try:
            engine = prepare_engine(self._given_engine or self._make_database())
            Base.metadata.create_all(engine)
            clock = SkippingClock()
            backend = MemoryBackend(clock, single_queue=True)
            self._open.enter_context(RUNTIME.replaced(engine, backend, self._registry))
            self._worker = InlineWorker(self._registry, clock)
            await self._worker.open()
            self._open.callback(self._worker.close)
            self._travel = TimeTravel(self._worker, engine, self._registry)
            self._open.callback(self._travel.close)
            self._open.enter_context(exits_contained(asyncio.get_running_loop()))
            if "agents" in sys.modules:
                # Even if the test gives no answers: an agent in a unit test must not call a real model.
                self._script()
        except BaseException:
            self._open.close()
            raise
        if self._in_background:
            self._pump = asyncio.create_task(self._work_in_background())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        try:
            if self._pump is not None:
                await self._stop_pump(self._pump)
        finally:
            await RUNTIME.run_in_thread(self._open.close)

    @property
    def model(self) -> AgentScript:
        """Script of the model's answers, for every agent of every run: `harness.model.say("…")`. Needs the Agents SDK."""
        return self._script()

    async def enqueue(
        self, task_name: str, context: Context = None, **options: Unpack[EnqueueOptions]
    ) -> Task:
        """Enqueue a task of this pool.

        Args:
            task_name: Name of the task.
            context: Its context.
            **options: See [`ax.EnqueueOptions`][agentexec.EnqueueOptions].

        Returns:
            The task.

        Raises:
            UnknownTaskError: The pool has no such task.
            ContextInvalidError: The context does not have the type that the handler takes.
        """
        self._registry.get(task_name)
        return await enqueue(task_name, context, **options)

    async def run(
        self, task_name: str, context: Context = None, **options: Unpack[EnqueueOptions]
    ) -> TaskRecord:
        """Enqueue a task, and run all its attempts until it has ended.

        Tasks that it enqueues stay queued (see `run_all`), except those whose results it waits for. Delays are skipped.
        An error that the handler raises is in the returned record.

        Args:
            task_name: Name of the task.
            context: Its context.
            **options: See [`ax.EnqueueOptions`][agentexec.EnqueueOptions].

        Returns:
            The record of the task.

        Raises:
            UnknownTaskError: The pool has no such task.
            ContextInvalidError: The context does not have the type that the handler takes.
            ScriptEndedError: An agent called the model, and the script had no answer left.
        """
        task = await self.enqueue(task_name, context, **options)
        await self._work({task.agent_id})
        return self.task(task)

    async def run_only(self, agent_id: UUID) -> None:
        """Run all attempts of one queued task until it has ended."""
        await self._work({agent_id})

    async def run_all(self) -> list[TaskRecord]:
        """Run all queued tasks, and the tasks that they enqueue, until none is left.

        Returns:
            The records of the tasks, in the order of their starts.

        Raises:
            ScriptEndedError: An agent called the model, and the script had no answer left.
        """
        return [self.task(agent_id) for agent_id in await self._work(None)]

    async def advance(self, time: timedelta | float) -> list[TaskRecord]:
        """Move the time ahead, and do what is due on the way, each at its moment.

        That is: delayed tasks, and those that they enqueue; ticks of schedules; reminders and time-outs of questions; the
        expiry of tasks and results. Nothing that is due later is run. The clock is agentexec's own: `datetime.now()` in
        your code does not move.

        Args:
            time: How far: a timedelta, or seconds.

        Returns:
            The records of the tasks that ran, in the order of their starts, each as it was right after it ran.

        Raises:
            UsageError: `time` is negative, or more is due in that time than a test can do.
            ScriptEndedError: An agent called the model, and the script had no answer left.
        """
        seconds = time.total_seconds() if isinstance(time, timedelta) else float(time)
        async with self._turn:
            return await self._checked(self._travel.advance(seconds, self.task))

    def task(self, task: Task | UUID | str) -> TaskRecord:
        """Read the record of a task.

        Args:
            task: The task, or its id.

        Returns:
            The record as it is now.

        Raises:
            ActivityNotFoundError: There is no such task.
        """
        agent_id = agent_id_of(task)
        with Session(RUNTIME.engine) as db:
            found = detail(db, agent_id)
        return TaskRecord(
            agent_id=agent_id,
            task_name=found.task_name,
            status=found.status,
            result=self._result(agent_id),
            error=found.error,
            attempts=found.attempt,
            percentage=found.percentage,
            metadata=found.metadata,
            log=found.logs,
        )

    @property
    def tasks(self) -> list[TaskRecord]:
        """Records of all tasks of this harness, oldest first."""
        with Session(RUNTIME.engine) as db:
            ids = db.scalars(select(Activity.agent_id).order_by(Activity.created_at, Activity.agent_id)).all()
        return [self.task(agent_id) for agent_id in ids]

    @property
    def approvals(self) -> list[ApprovalSchema]:
        """Calls that wait for a person, oldest first. Answer with `ax.approve` or `ax.reject`, then call `run_all`."""
        with Session(RUNTIME.engine) as db:
            return list_approvals(db)

    async def _work(self, wanted: set[UUID] | None) -> list[UUID]:
        async with self._turn:
            return await self._checked(self._worker.work(wanted))

    async def _work_in_background(self) -> None:
        while True:
            if not await self._work(None):
                await asyncio.sleep(LOOK_SECONDS)

    async def _stop_pump(self, pump: asyncio.Task[None]) -> None:
        """Let the task that runs now end, and raise what the work in the background has met."""
        async with self._turn:
            pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump

    async def _checked(self, work: Awaitable[list[T]]) -> list[T]:
        """Await work, and raise what an agent has asked of the script in vain."""
        if self._pump is not None and self._pump.done():
            pump, self._pump = self._pump, None
            pump.result()
        if self._model is None and "agents" in sys.modules:
            self._script()
        ran = await work
        if self._model is not None and self._model.pending_error is not None:
            error, self._model.pending_error = self._model.pending_error, None
            raise error
        return ran

    def _result(self, agent_id: UUID) -> Any:
        for end in read_outcomes(RUNTIME, [agent_id]):
            definition = self._registry.find(end.task_name)
            result = end.result if end.status is Status.COMPLETE else None
            if result is not None and definition is not None:
                return definition.result.load(result)
        return None

    def _script(self) -> AgentScript:
        if self._model is None:
            # Made on first use: it imports the Agents SDK, which takes two seconds and is not needed by every test.
            scripted = importlib.import_module("agentexec.testing.scripted_model")
            model: AgentScript = scripted.AgentScript()
            self._open.enter_context(scripted.override_agent_models(model))
            self._model = model
        return self._model

    def _make_database(self) -> Engine:
        # A file, not memory, as handlers, writer and test use connections of their own at the same time.
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="agentexec-"))
        engine = create_engine(f"sqlite:///{Path(folder) / 'record.db'}")
        self._open.callback(engine.dispose)
        event.listen(engine, "connect", _never_sync)
        return engine


class Harness:
    """Harness for tests that are plain functions: `AsyncHarness` on its own event loop."""

    def __init__(self, pool: Pool, engine: Engine | None = None, *, background: bool = False) -> None:
        self._loop = LoopThread() if background else asyncio.Runner()
        self._inner = AsyncHarness(pool, engine, background=background)
        try:
            self._loop.run(self._inner.__aenter__())
        except BaseException:
            self._loop.close()
            raise

    @property
    def model(self) -> AgentScript:
        """See `AsyncHarness.model`."""
        return self._inner.model

    @property
    def tasks(self) -> list[TaskRecord]:
        """See `AsyncHarness.tasks`."""
        return self._inner.tasks

    @property
    def approvals(self) -> list[ApprovalSchema]:
        """See `AsyncHarness.approvals`."""
        return self._inner.approvals

    def enqueue(self, task_name: str, context: Context = None, **options: Unpack[EnqueueOptions]) -> Task:
        """See `AsyncHarness.enqueue`."""
        return self._loop.run(self._inner.enqueue(task_name, context, **options))

    def run(self, task_name: str, context: Context = None, **options: Unpack[EnqueueOptions]) -> TaskRecord:
        """See `AsyncHarness.run`."""
        return self._loop.run(self._inner.run(task_name, context, **options))

    def run_all(self) -> list[TaskRecord]:
        """See `AsyncHarness.run_all`."""
        return self._loop.run(self._inner.run_all())

    def advance(self, time: timedelta | float) -> list[TaskRecord]:
        """See `AsyncHarness.advance`."""
        return self._loop.run(self._inner.advance(time))

    def task(self, task: Task | UUID | str) -> TaskRecord:
        """See `AsyncHarness.task`."""
        return self._inner.task(task)

    def close(self) -> None:
        """Remove everything, as the end of the `with` block does."""
        try:
            self._loop.run(self._inner.__aexit__())
        finally:
            self._loop.close()


def _never_sync(connection: Any, _record: Any) -> None:
    """Skip syncs to disk: a test's record need not survive a crash of the machine."""
    connection.execute("PRAGMA synchronous=OFF")

"""Runtime of a process: the engine of the record and the state backend, opened on first use."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar, cast
from uuid import UUID

from sqlalchemy import Engine

from agentexec.config import CONF, EMBEDDED_DATABASE_URL
from agentexec.db.engine import open_engine, prepare_engine
from agentexec.db.lock_limits import engine_for_users
from agentexec.db.own_connection import own_connection
from agentexec.errors import SettingsError, UsageError
from agentexec.outage import wait_out_async
from agentexec.payloads.deployment import Deployment
from agentexec.payloads.offloading import offload, remove_payloads
from agentexec.registry import Registry
from agentexec.state.backend import StateBackend
from agentexec.state.best_effort import BestEffort
from agentexec.state.loading import load_backend
from agentexec.task import Lease, TaskDefinition
from agentexec.telemetry.meter import Meter

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from agentexec.telemetry.tracing import Tracing

P = ParamSpec("P")
R = TypeVar("R")

FORKED_WITH_SQLITE = (
    "A process forked by a worker cannot use the worker's SQLite database: SQLite does not survive a fork. Start the process with "
    'multiprocessing.get_context("spawn"), or let the task itself report and enqueue.'
)

EDGE_THREADS = 8
"""Threads that run the blocking calls of async users. The database's connection pool is slightly larger."""


class ProgressWriter(Protocol):
    """Batching writer of a worker process, for `ax.activity`."""

    def holds(self, agent_id: UUID) -> bool:
        """Return True while this process runs the task."""
        ...

    def report_progress(
        self, agent_id: UUID, epoch: int | None, message: str, percentage: int | None
    ) -> None:
        """Note a report, to be written with the next batch."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until everything taken so far is written; return False if it took longer."""
        ...


class Slots(Protocol):
    """Slots of a worker process: code that waits gives its slot to another task until it continues."""

    max_inline_sleep: float
    skips_sleep: bool

    def released(
        self, agent_id: UUID, *, requeue_on_stop: bool, for_tasks: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Release the task's slot for the length of an `async with` block."""
        ...

    def released_in_thread(
        self, agent_id: UUID, *, requeue_on_stop: bool, for_tasks: bool = False
    ) -> AbstractContextManager[None]:
        """Release the task's slot for the length of a `with` block in a thread of the handler."""
        ...


class Leases(Protocol):
    """Leases of a worker process, for code that is about to do something that costs or acts."""

    def is_certain(self, lease: Lease) -> bool:
        """Return True if no other worker can have taken the task, as far as this process knows without asking."""
        ...

    def confirm(self, lease: Lease) -> None:
        """Ask the servers, and raise LeaseLostError if another worker has the task; a blocking call."""
        ...


class Closing(Protocol):
    """Object that the runtime shares and closes."""

    def close(self) -> None:
        """Free what the object holds."""
        ...


C = TypeVar("C", bound=Closing)


class Runtime:
    """Opens, shares and closes the resources of a process. `with` closes it at the end of the block."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._lost_database: str | None = None
        self._owns_engine = False
        self._backend: StateBackend | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._registries: weakref.WeakSet[Registry] = weakref.WeakSet()
        self._shared: dict[type[Any], Closing] = {}
        self.progress_writer: ProgressWriter | None = None
        """Writer of progress reports; None outside worker processes."""
        self.slots: Slots | None = None
        """Slots of the worker; None outside worker processes."""
        self.leases: Leases | None = None
        """Leases of the worker; None outside worker processes."""
        self._tracing: Tracing | None = None
        self.meter: Meter | None = None
        """Meter of this process; None unless somebody reads the metrics."""
        self.replay: Any = None
        """The watch over an offline replay (`agentexec.journal.watch`); None in every other process."""
        self.only_reads_program = False
        """True in processes that import the user's program to find its tasks: workers, and commands that are given it. They
        must not start workers, and commands must not run the program's exit handlers."""

    def configure(
        self, *, engine: Engine | AsyncEngine | None = None, database_url: str | None = None
    ) -> None:
        """Set the database by an engine (sync or async) or by its URL, and close the previous connections."""
        if engine is not None and database_url is not None:
            raise UsageError("Give either engine= or database_url=, not both.")
        with self._lock:
            if engine is not None:
                if engine is self._engine:
                    return
                self.close()
                self._engine, self._owns_engine = prepare_engine(engine), False
            elif database_url is not None:
                self.close()
                self._engine, self._owns_engine = open_engine(database_url), True

    @property
    def embedded(self) -> bool:
        """True if neither an engine nor a database URL was given: agentexec uses its own SQLite file."""
        return (self._engine is None or self._owns_engine) and str(self.engine.url) == EMBEDDED_DATABASE_URL

    @property
    def engine(self) -> Engine:
        """Engine of the record, created from the settings unless one was given."""
        engine = self._engine
        if engine is None:
            if self._lost_database is not None:
                raise UsageError(self._lost_database)
            with self._lock:
                if self._engine is None:
                    self._engine, self._owns_engine = (
                        open_engine(CONF.database_url or EMBEDDED_DATABASE_URL),
                        True,
                    )
                engine = self._engine
        return engine

    @property
    def backend(self) -> StateBackend:
        """State backend that the settings name."""
        backend = self._backend
        if backend is None:
            with self._lock:
                if self._backend is None:
                    self._backend = load_backend(CONF.backend_module, CONF, self.engine)
                backend = self._backend
        return backend

    @property
    def tracing(self) -> Tracing | None:
        """Spans and metrics of OpenTelemetry; None unless `AGENTEXEC_OPENTELEMETRY` is set."""
        if not CONF.opentelemetry:
            return None
        return self._tracing or self._open_tracing()

    def _open_tracing(self) -> Tracing:
        try:
            from agentexec.telemetry.tracing import Tracing  # noqa: PLC0415 - the library is an extra
        except ImportError:
            raise SettingsError(
                "AGENTEXEC_OPENTELEMETRY needs OpenTelemetry; install it with: pip install 'agentexec[otel]'."
            ) from None
        self._tracing = Tracing()
        return self._tracing

    def add_registry(self, registry: Registry) -> None:
        """Make a pool's tasks known to `enqueue` and `get_result` in this process."""
        self._registries.add(registry)

    def registry_of(self, task_name: str) -> Registry | None:
        """Return the registry of the pool of this process that has a task, or None."""
        found = (registry for registry in list(self._registries) if registry.find(task_name) is not None)
        return next(found, None)

    def definition(self, task_name: str) -> TaskDefinition | None:
        """Return the definition of a task that some pool of this process has registered, or None."""
        for registry in list(self._registries):
            definition = registry.find(task_name)
            if definition is not None:
                return definition
        return None

    def queue_of(self, task_name: str) -> str:
        """Return the queue of a task for which none is given: that of its definition or pool in this process, if named."""
        for registry in list(self._registries):
            queue = registry.queue_of(task_name)
            if queue is not None:
                return queue
        return CONF.queue_name

    def named_queues(self) -> list[str]:
        """Return the queues that the definitions of tasks in this process name."""
        return sorted(
            {task.queue for registry in self._registries for task in registry if task.queue is not None}
        )

    def get_shared(self, kind: type[C], make: Callable[[], C]) -> C:
        """Return the only object of a kind in this process, created on first use and kept until `close`."""
        found = self._shared.get(kind)
        if found is None:
            with self._lock:
                found = self._shared.setdefault(kind, make())
        return cast(C, found)

    def best_effort(
        self, log: logging.Logger, consequence: str, *args: object
    ) -> AbstractContextManager[None]:
        """Log every error of a block, at most once a minute for each reason; see `BestEffort.guard`."""
        return self.get_shared(BestEffort, BestEffort).guard(log, consequence, *args)

    @property
    def deployment(self) -> Deployment:
        """Deployment that values in the payload store belong to."""
        return self.get_shared(Deployment, lambda: Deployment(self.engine))

    def offload(self, owner: UUID | str, what: str, value: str) -> str:
        """Write a large value to the payload store, see `payloads.offloading`. Blocks."""
        return offload(self.deployment, owner, what, value)

    def remove_payloads(self, owners: Iterable[UUID | str]) -> None:
        """Remove what the payload store has of removed tasks or conversations; beside a running event loop, in a thread."""
        if CONF.payload_store is None:
            return
        removal = functools.partial(remove_payloads, self.deployment, list(owners))
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            removal()
        else:
            self.submit(removal)

    async def run_in_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking call outside the event loop, in own threads: users may occupy those of the loop."""
        bound = functools.partial(call, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._edge, bound)

    async def run_patiently(self, call: Callable[..., R], *args: object, limit: float | None = None) -> R:
        """Run a blocking call in a thread; inside a task, again while a server is away: see `wait_out`."""
        return await wait_out_async(self.run_in_thread, call, *args, limit=limit)

    def submit(self, call: Callable[[], object]) -> None:
        """Run a blocking call in a thread without waiting for it."""
        self._edge.submit(call)

    @property
    def _edge(self) -> ThreadPoolExecutor:
        threads = self._threads
        if threads is None:
            with self._lock:
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(EDGE_THREADS, thread_name_prefix="agentexec-edge")
                threads = self._threads
        return threads

    def close(self) -> None:
        """Close connections. The next use opens them again."""
        with self._lock:
            for shared in self._shared.values():
                shared.close()
            self._shared.clear()
            if self._backend is not None:
                self._backend.close()
            if self._engine is not None and self._owns_engine:
                self._engine.dispose()
            elif self._engine is not None and (own := own_connection(self._engine)) is not None:
                own.close()
            self._backend, self._engine, self._owns_engine = None, None, False

    def forget_connections(self) -> None:
        """Drop inherited connections in a forked child, without closing those of the parent.

        A child of a worker process does not belong to the worker: it reports like any other process.
        """
        self._lock = threading.RLock()
        if self._engine is not None:
            self._engine.dispose(close=False)
            if self.progress_writer is not None and self._engine.dialect.name == "sqlite":
                # The worker's threads do not exist here, but SQLite keeps counting their connections and locks.
                self._engine, self._lost_database = None, FORKED_WITH_SQLITE
        self._backend, self._threads = None, None
        self.progress_writer = self.slots = self.leases = None
        self.meter = None  # nobody would report what it counts
        self._shared.clear()

    @contextmanager
    def replaced(self, engine: Engine, backend: StateBackend, registry: Registry) -> Generator[None]:
        """Use another database, backend and pool within the block, for tests; afterwards the previous ones again.

        The previous connections stay open; those that the block opened are closed at its end.
        """
        with self._lock:
            before = (
                self._engine,
                self._owns_engine,
                self._backend,
                self._shared,
                self._registries,
                self.progress_writer,
                self.slots,
                self.leases,
            )
            self._engine, self._owns_engine, self._backend = prepare_engine(engine), False, backend
            self._shared, self._registries = {}, weakref.WeakSet([registry])
            self.progress_writer = self.slots = self.leases = None
        try:
            yield
        finally:
            with self._lock:
                self.close()
                self._engine, self._owns_engine, self._backend = before[:3]
                self._shared, self._registries, self.progress_writer, self.slots, self.leases = before[3:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


RUNTIME = Runtime()

if hasattr(os, "register_at_fork"):
    # A server may load the application and then fork: threads and connections stay with the parent.
    os.register_at_fork(after_in_child=RUNTIME.forget_connections)


def configure(*, engine: Engine | AsyncEngine | None = None, database_url: str | None = None) -> None:
    """Set the database that agentexec uses in this process.

    Without a call, the environment decides (AGENTEXEC_DATABASE_URL, DATABASE_URL); the default is
    sqlite:///agentexec.db in the current folder.

    Args:
        engine: SQLAlchemy Engine or AsyncEngine. The caller closes it.
        database_url: SQLAlchemy URL.

    Raises:
        UsageError: Both were given, or the URL cannot be used.
    """
    RUNTIME.configure(engine=engine, database_url=database_url)


def get_engine() -> Engine:
    """Return the SQLAlchemy engine that agentexec uses in this process, for the application's own sessions.

    Returns:
        The sync engine of the record.
    """
    return engine_for_users(RUNTIME.engine)

"""Execution: the path of claimed tasks through a process, from admission to settlement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentexec.activity.changes.crashes import clear_crashes
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.stores import record_store
from agentexec.activity.changes.versions import Versions
from agentexec.activity.changes.writer import Writer
from agentexec.activity.live.publisher import EventPublisher
from agentexec.config import Settings
from agentexec.db.transactions import writing
from agentexec.registry import Registry
from agentexec.runtime import Runtime
from agentexec.task import Lease
from agentexec.worker.admission import Admitter
from agentexec.worker.forks import HandlerThreads
from agentexec.worker.leased_tasks import LeasedTasks
from agentexec.worker.running import RunningTasks
from agentexec.worker.settlement import Settlement
from agentexec.worker.slots import MAX_INLINE_SLEEP, Slots
from agentexec.worker.suspects import Suspects
from agentexec.worker.task_keys import RegisteredKeys

MAX_WAITING_THREADS = 10_000
"""Maximum number of plain-function handlers that wait for other tasks at once, each in its own thread."""


class Execution:
    """The parts that a claimed task passes, connected: admission, running, writer, settlement.

    A worker process has one, and so has the test harness. It holds no state; each part states which thread owns its.

    Args:
        stopping: True once the process drains.
        on_written: Called in the writer's thread with the endings that were written.
        max_inline_sleep: Longest sleep of a handler, in seconds, that does not leave the process.
        skips_sleep: Count a sleep as slept when the task comes back, whatever the clock says.
        shares_queue: Other processes write to the queue and claim from it: tasks whose names the registry lacks are left
            for them (otherwise they fail at once), and claims that contradict the record are dropped.
    """

    def __init__(
        self,
        registry: Registry,
        runtime: Runtime,
        settings: Settings,
        *,
        stopping: Callable[[], bool],
        on_written: Callable[[Sequence[Ending]], object] | None = None,
        max_inline_sleep: float = MAX_INLINE_SLEEP,
        skips_sleep: bool = False,
        shares_queue: bool = False,
    ) -> None:
        self._runtime = runtime
        live = runtime.get_shared(EventPublisher, lambda: EventPublisher(runtime))
        self.versions = Versions(
            settings.worker_version,
            registry.versions,
            is_pinned=settings.pin_versions and shares_queue,
        )
        self.slots = Slots(
            settings.worker_concurrency,
            max_inline_sleep=max_inline_sleep,
            skips_sleep=skips_sleep,
            on_release=lambda agent_id: self.suspects.note_wait(agent_id),
        )
        self.suspects = Suspects(
            settings.max_crashes,
            clear_crashes=self._clear_crashes,
            submit=runtime.submit,
            on_absolved=self.slots.notify,
        )
        self.tasks = LeasedTasks(self.slots, self.suspects, settings.served_queues[0].name)
        live.queue_of = self.tasks.queue_of
        self.settlement = Settlement(runtime, self.tasks, on_written=on_written)
        self.writer = Writer(
            record_store(runtime),
            result_ttl=settings.result_ttl,
            acknowledge=self.settlement.acknowledge if runtime.backend.transactional else None,
            queue_table=getattr(runtime.backend, "queue_table", None),
            settle=self.settlement.settle,
            abandon=lambda agent_id: self.tasks.settle([agent_id]),
            live=live,
        )
        self.threads = HandlerThreads(
            settings.worker_concurrency + MAX_WAITING_THREADS, thread_name_prefix="agentexec-task"
        )
        self.running = RunningTasks(
            registry,
            settings,
            self.tasks,
            self.writer,
            self.threads,
            runtime.meter,
            runtime.tracing,
            on_aborted=lambda agent_id: runtime.submit(lambda: self.settlement.free_lock(agent_id)),
        )
        self.admitter = Admitter(
            runtime,
            settings,
            self.tasks,
            self.suspects,
            self.writer,
            live,
            begin=self.running.begin,
            stopping=stopping,
            task_names=registry.names if shares_queue else None,
            checks_queue=shares_queue,
            keys=RegisteredKeys(registry),
            versions=self.versions,
            starts_early=skips_sleep,
        )

    def open(self) -> None:
        """Start the writer, and run tasks on the running event loop."""
        self._runtime.progress_writer, self._runtime.slots = self.writer, self.slots
        self.writer.start()
        self.running.open()

    def _clear_crashes(self, lease: Lease) -> None:
        with writing(self._runtime.engine, relaxed=True) as connection:
            clear_crashes(connection, lease)

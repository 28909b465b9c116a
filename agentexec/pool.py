"""Pools: tasks, and the workers that run them. A facade over the registry and the supervisor."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from agentexec.arguments.approval_policies import ApprovalPolicy, checked_approvals
from agentexec.arguments.queue_names import check_queue_name
from agentexec.arguments.served_queues import format_queues
from agentexec.arguments.variables import variable_texts
from agentexec.config import CONF, explicit_settings
from agentexec.errors import AgentexecError, UsageError
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.schedules.declare import schedule_definition
from agentexec.task import HandlerOptions, ScheduleOptions, TaskDefinition
from agentexec.values.signatures import default_name
from agentexec.worker import logs
from agentexec.worker.supervisor import Supervisor
from agentexec.worker.target import Target
from agentexec.worker.unknown_variables import warn_of_unknown_variables

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger("agentexec")

Handler = TypeVar("Handler", bound=Callable[..., Any])


class StoppedByInterrupt(KeyboardInterrupt, SystemExit):
    """Raised by `Pool.run` after an orderly stop by Ctrl-C.

    A program that wants to clean up catches it with `except KeyboardInterrupt:`. If nobody catches it, it ends the program
    without a traceback and with its exit code, as SystemExit does.
    """


class Pool:
    """Tasks, and the workers that run them.

    A pool configures the database of the whole process, as `ax.configure` does.

    Args:
        engine: A SQLAlchemy Engine or AsyncEngine.
        database_url: A SQLAlchemy URL, instead of an engine. Without either, the environment decides
            (AGENTEXEC_DATABASE_URL, DATABASE_URL); the default is sqlite:///agentexec.db.
        queue_name: Queue that the workers of this pool serve, and to which its tasks are enqueued in a process that has
            the pool. It takes precedence over AGENTEXEC_QUEUE_NAME, and `agentexec worker --queue` over it.
        queues: Queues that the workers of this pool serve instead: a list of names, tried in that order, a mapping of names
            to weights, or a text like "high,default" or "high:3,default:1". It takes precedence over AGENTEXEC_QUEUES, and
            `agentexec worker --queue` over it.
        approvals: Policy of approvals for all tasks: which tools ask a person, and what happens to questions that nobody
            answers. `@pool.task(approvals=)` takes precedence.

    Raises:
        UsageError: An engine and a URL are given, the URL cannot be used, or a name breaks the rule for names of queues: 1 to 100 visible
            characters, without blanks, commas and double quotes, and without a colon and a number at the end.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine | None = None,
        *,
        database_url: str | None = None,
        queue_name: str | None = None,
        queues: str | Sequence[str] | Mapping[str, int] | None = None,
        approvals: ApprovalPolicy | None = None,
    ) -> None:
        if queue_name is not None:
            queue_name = check_queue_name("queue_name=", queue_name)
        served = None if queues is None else format_queues(queues)
        RUNTIME.configure(engine=engine, database_url=database_url)
        self.registry = Registry()
        self.registry.queue_name = queue_name
        self.registry.queues = served
        self.registry.approvals = checked_approvals("approvals=", approvals)
        RUNTIME.add_registry(self.registry)
        self._supervisor: Supervisor | None = None
        self._thread: threading.Thread | None = None

    @overload
    def task(self, name: Handler) -> Handler: ...
    @overload
    def task(
        self, name: str | None = None, **options: Unpack[HandlerOptions]
    ) -> Callable[[Handler], Handler]: ...
    def task(self, name: Any = None, **options: Unpack[HandlerOptions]) -> Any:
        """Register the decorated function as the handler of task `name`.

        The handler has the parameters `agent_id: UUID` and `context`. Contexts are validated against the type of `context`,
        and results against that of the return value: pydantic models, dataclasses, typed dictionaries, unions, plain types.
        An async handler runs on the event loop of a worker process, a plain function in one of its threads. Methods of
        objects, `functools.partial` and objects with `__call__` can be handlers too.

        Args:
            name: Name of the task, 1 to 200 characters; the name of the function by default, as in a mere `@pool.task`.
            **options: See [`ax.HandlerOptions`][agentexec.HandlerOptions].

        Returns:
            The decorator, which returns the function unchanged.

        Raises:
            UsageError: The name is taken, an option is invalid, the function cannot be called with these parameters, or
                a type cannot be resolved or read from JSON.
        """

        def register(handler: Handler) -> Handler:
            self.add_task(default_name(handler) if name is None else name, handler, **options)
            return handler

        if name is None or isinstance(name, str):
            return register
        self.add_task(default_name(name), name, **options)
        return name

    def add_task(
        self, name: str, handler: Callable[..., Any], **options: Unpack[HandlerOptions]
    ) -> TaskDefinition:
        """Register a handler: `task` as a call, for a function that cannot be decorated.

        Args:
            name: Name of the task, 1 to 200 characters.
            handler: Function with the parameters `agent_id` and `context`.
            **options: See [`ax.HandlerOptions`][agentexec.HandlerOptions].

        Returns:
            The definition of the task.

        Raises:
            UsageError: As `task` does.
        """
        if self._thread is not None and self._thread.is_alive() and name not in self.registry:
            log.warning(
                "Task %s is registered after pool.start(): workers run it only if they find it when they import the "
                "program.",
                name,
            )
        return self.registry.add(name, handler, **options)

    def schedule(
        self, name: str, cron: str | timedelta, **options: Unpack[ScheduleOptions]
    ) -> Callable[[Handler], Handler]:
        """Register the decorated function as the handler of task `name`, and a schedule of the same name that enqueues it.

        For options of the handler, such as `retries`, use `task` and `add_schedule`.

        Args:
            name: Name of the task and of the schedule, 1 to 200 characters.
            cron: As for `add_schedule`.
            **options: See [`ax.ScheduleOptions`][agentexec.ScheduleOptions].

        Returns:
            The decorator, which returns the function unchanged.

        Raises:
            UsageError: As `task` and `add_schedule` do.
            ContextInvalidError: The context does not fit the type of the handler.
        """

        def register(handler: Handler) -> Handler:
            self.add_task(options.get("task", name), handler)
            self.add_schedule(name, cron, **options)
            return handler

        return register

    def add_schedule(self, name: str, cron: str | timedelta, **options: Unpack[ScheduleOptions]) -> None:
        """Declare a schedule, which enqueues a task of this pool at each of its ticks.

        Each tick enqueues one task, however many workers there are. The schedule ticks while a worker that declares it runs.
        A tick that is up to five minutes late still counts, if it is the latest one; those before it were missed, and are
        skipped unless `backfill` says otherwise.

        Args:
            name: Name of the schedule, 1 to 200 characters, and of its task unless `task` names another.
            cron: A cron expression of five fields (minute, hour, day, month, weekday), or six with seconds first, such as
                "0 8 * * 1-5"; a name such as "@daily"; or a timedelta of a second or more, counted from tick to tick.
                Where clocks are set forward, a tick of the missing hour comes at its end; where they are set back, a fixed
                hour ticks once.
            **options: See [`ax.ScheduleOptions`][agentexec.ScheduleOptions].

        Raises:
            UnknownTaskError: The pool has no such task.
            UsageError: The name is taken, or an argument is invalid.
            ContextInvalidError: The context does not fit the type of the handler.
        """
        self.registry.get(options.get("task", name))
        self.registry.add_schedule(schedule_definition(name, cron, options))

    @overload
    def on_failure(self, handler: Handler) -> Handler: ...
    @overload
    def on_failure(
        self, handler: None = None, **options: Unpack[HandlerOptions]
    ) -> Callable[[Handler], Handler]: ...
    def on_failure(self, handler: Any = None, **options: Unpack[HandlerOptions]) -> Any:
        """Register the decorated function as a handler of failures, which is called once any task of this pool has failed.

        That is a task that ended in ERROR, because its handler raised or its workers crashed too often, or one that expired; not one that
        was canceled. The call is a task of its own, enqueued with the failure, with 5 retries by default: it survives every
        crash, and happens at least once. A failure of the handler itself is only logged. `@pool.task(on_failure=)` registers a
        handler for one task.

        Args:
            handler: Function with the parameters `agent_id`, of the call's own task, and `context`, an
                [`ax.TaskFailure`][agentexec.TaskFailure].
            **options: See [`ax.HandlerOptions`][agentexec.HandlerOptions].

        Returns:
            The function unchanged, or the decorator if options are given.

        Raises:
            UsageError: As `task` does.
        """

        def register(function: Handler) -> Handler:
            self.registry.add_failure_handler(function, **options)
            return function

        return register if handler is None else register(handler)

    @overload
    def on_approval(self, handler: Handler) -> Handler: ...
    @overload
    def on_approval(
        self, handler: None = None, **options: Unpack[HandlerOptions]
    ) -> Callable[[Handler], Handler]: ...
    def on_approval(self, handler: Any = None, **options: Unpack[HandlerOptions]) -> Any:
        """Register the decorated function as a handler of questions, which is called when a task of this pool asks for approval.

        It is called once for each question, and again for each reminder (`ax.ApprovalPolicy(reminder=)`), unless a rule or a
        policy has answered the question. The call is a task of its own, with 5 retries by default: it survives every crash, and
        happens at least once. Questions of the handler itself call nothing.

        Args:
            handler: Function with the parameters `agent_id`, of the call's own task, and `context`, an
                [`ax.ApprovalRequest`][agentexec.ApprovalRequest].
            **options: See [`ax.HandlerOptions`][agentexec.HandlerOptions].

        Returns:
            The function unchanged, or the decorator if options are given.

        Raises:
            UsageError: As `task` does.
        """

        def register(function: Handler) -> Handler:
            self.registry.add_approval_handler(function, **options)
            return function

        return register if handler is None else register(handler)

    def run(self) -> None:
        """Run workers, and block until SIGTERM or SIGINT.

        Raises:
            KeyboardInterrupt: Ctrl-C has stopped the workers. If nobody catches it, no traceback is printed.
            SystemExit: The workers cannot start, or had to be killed; the exit code is one of the documented ones.
            UsageError: The call is made within a worker, which imports the program.
        """
        self._refuse_within_workers()
        logs.set_up("supervisor", CONF)
        try:
            supervisor = self._supervise()
        except AgentexecError as error:
            log.error("%s", error)
            raise SystemExit(error.exit_code) from None
        code = supervisor.run()
        if supervisor.stopped_by == signal.SIGINT:
            raise StoppedByInterrupt(code)
        if code:
            raise SystemExit(code)

    def start(self) -> None:
        """Start workers in the background, and return once they start: after a second or so, plus the module's import.

        Tasks then run until `shutdown`, or until the program ends. A server that cannot be reached is waited for, up to
        AGENTEXEC_CONNECT_TIMEOUT seconds. In async code, call it as `await asyncio.to_thread(pool.start)`, so that the
        event loop continues meanwhile.

        Raises:
            UsageError: The workers run already, the call is made within a worker, or a setting is invalid.
            ModuleLoadError: The workers cannot import the program, or do not find the pool in it.
            UnavailableError: Redis or the database cannot be reached.
            SchemaError: The database needs `agentexec migrate`.
            AgentexecError: Something else keeps the workers from starting. In all cases, none of their processes is
                left, and `start` may be called again.
        """
        self._refuse_within_workers()
        if self._thread is not None and self._thread.is_alive():
            raise UsageError("The pool's workers run already. Call pool.shutdown() first.")
        supervisor = self._supervise(log_failed_start=False)
        thread = threading.Thread(
            # A daemon, as a program that ends without `shutdown` must not hang. The workers notice its end and stop.
            target=_supervise_in_background,
            args=(supervisor,),
            name="agentexec-supervisor",
            daemon=True,
        )
        self._supervisor, self._thread = supervisor, thread
        thread.start()
        try:
            supervisor.start_settled.wait()
        except BaseException:  # Ctrl-C
            supervisor.stop(signal.SIGQUIT)
            raise
        if supervisor.failure is not None:
            thread.join()
            self._supervisor = self._thread = None
            raise supervisor.failure

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop the background workers in order, and wait for their end. Without such workers it does nothing.

        Args:
            timeout: Seconds that running tasks get, by default AGENTEXEC_GRACEFUL_SHUTDOWN_TIMEOUT. Unfinished tasks go
                back to the queue.
        """
        if self._supervisor is None or self._thread is None:
            return
        self._supervisor.stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._supervisor.stop(signal.SIGQUIT)
            self._thread.join()
        self._supervisor = self._thread = None

    def _supervise(self, *, log_failed_start: bool = True) -> Supervisor:
        """Return a supervisor whose processes import the running program again, under the settings in force here."""
        overrides = explicit_settings()
        if self.registry.queue_name is not None:
            overrides["queue_name"] = self.registry.queue_name
        if self.registry.queues is not None:
            overrides["queues"] = self.registry.queues
        supervisor = Supervisor(
            Target.from_pool(self),
            CONF,
            overrides=variable_texts(overrides),
            run_atexit=False,
            log_failed_start=log_failed_start,
        )
        warn_of_unknown_variables()
        return supervisor

    def _refuse_within_workers(self) -> None:
        # Without this check, a program that starts its pool at import would start workers without end.
        if RUNTIME.only_reads_program:
            raise UsageError(
                "Workers import the program to find its tasks, and must not start workers themselves. Put pool.run() "
                'or pool.start() under `if __name__ == "__main__":`.'
            )


def _supervise_in_background(supervisor: Supervisor) -> None:
    """Run a supervisor in a thread. The caller of `Pool.start` raises the reason of a failed start."""
    try:
        supervisor.run(handle_signals=False)
    except Exception:
        if supervisor.failure is None:
            raise

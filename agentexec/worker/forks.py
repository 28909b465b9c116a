"""Forks: what a process that a task's code forks must not inherit from the worker, and where it must end.

A worker process is forked too, from the template. That fork keeps the handlers of signals until the worker has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, thread
from types import TracebackType
from typing import Any, NoReturn, Self

from agentexec.config import CONF
from agentexec.errors import UsageError
from agentexec.journal.scopes import SCOPE
from agentexec.redaction import redact
from agentexec.task import CURRENT_LEASE

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that the processes of a worker handle or ignore."""


AWAITED = "A process forked by a task has awaited something in the event loop of its worker. End it with os._exit()."


class Forks:
    """Forks of the template and of the processes that it forks, which inherit this object.

    Threads: those of the fork.
    """

    def __init__(self) -> None:
        self._starts_worker = False
        self._generators: weakref.WeakSet[random.Random] = weakref.WeakSet()
        self._masks = threading.local()
        self._loop: asyncio.AbstractEventLoop | None = None

    def register(self) -> None:
        """Have Python call this object at each fork of this process and of those that it forks."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before, after_in_parent=self._restore_mask, after_in_child=self._in_child
            )

    def note_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the event loop of this process, to which no forked child may return."""
        self._loop = loop

    def fork_worker(self) -> int:
        """Fork a process that is to run a worker."""
        self._starts_worker = True
        try:
            pid = os.fork()
        finally:
            self._starts_worker = False
        if pid == 0:
            # Otherwise these generators would yield the same numbers in every worker.
            for generator in list(self._generators):
                random.Random.seed(generator)
        return pid

    @contextlib.contextmanager
    def noting_generators(self) -> Generator[None]:
        """Note the instances of `random.Random` that are made without a seed inside the block.

        `fork_worker` seeds them again. Those with a seed are meant to yield the same numbers everywhere.
        """
        seed = random.Random.seed

        def noting_seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
            (self._generators.add if a is None else self._generators.discard)(generator)
            seed(generator, a, version)

        random.Random.seed = noting_seed  # ty: ignore[invalid-assignment]
        try:
            yield
        finally:
            random.Random.seed = seed

    def _before(self) -> None:
        # Until it has let go of the wake-up descriptor, a signal to the child would reach this process through it.
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)

    def _restore_mask(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _in_child(self) -> None:
        try:
            if not self._starts_worker:
                self._leave_worker()
        finally:
            self._restore_mask()

    def _leave_worker(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in HANDLED_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        # At its exit Python joins the threads of executors. One that forks would join itself: an error, and exit code 1.
        with contextlib.suppress(AttributeError):
            thread._threads_queues.clear()  # ty: ignore[missing-attribute]
        # The task runs in the parent. To the child it is like any other task.
        CURRENT_LEASE.set(None)
        SCOPE.set(None)
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon(_end, UsageError(AWAITED))


def ignore_signals(*numbers: signal.Signals) -> None:
    """Ignore signals in this process, but not in the programs that it starts: those would inherit SIG_IGN."""
    for number in numbers:
        # `nohup` is meant for those programs too.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ignore)
            signal.siginterrupt(number, False)


def _ignore(*_signal: object) -> None:
    pass


class ForksEnd:
    """Block of code at whose end a forked child ends too, so that it cannot continue as a second worker."""

    __slots__ = ("_pid",)

    def __enter__(self) -> Self:
        self._pid = os.getpid()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        end_in_child(self._pid, error)


def end_in_child(pid: int, error: BaseException | None = None) -> None:
    """End this process, as `ForksEnd` does, if it is a child that the process `pid` has forked meanwhile."""
    if os.getpid() != pid:
        _end(error)


class HandlerThreads(ThreadPoolExecutor):
    """Threads for the functions of tasks: handlers, tools and steps."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread, and end a child that it forks when it returns there."""
        return super().submit(_call, fn, *args, **kwargs)


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with ForksEnd():
        return function(*args, **kwargs)


def _end(error: BaseException | None) -> NoReturn:
    """End a forked child as a program ends that raised an error, or none, but without exit handlers."""
    code = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        code = 1
        sys.stderr.write(redact("".join(traceback.format_exception(error)), CONF.secrets))
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def terminate_children() -> None:
    """Terminate the `multiprocessing` children that tasks have left behind.

    Python does so in an exit handler, for daemonic ones, but worker processes run none.
    """
    processes = sys.modules.get("multiprocessing.process")
    for child in processes.active_children() if processes is not None else []:
        # The template's children are in the list too.
        if getattr(child, "_parent_pid", None) == os.getpid():
            child.terminate()

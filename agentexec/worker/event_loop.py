"""The event loop of a process, which handlers share: no handler ends it for the others."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from agentexec.errors import UsageError
from agentexec.task import CURRENT_LEASE, Lease

log = logging.getLogger("agentexec.worker")

T = TypeVar("T")

PROTECTED_MARK = "_agentexec_protects_loop"

ANYIO_MARK = "cancel scope"
"""Part of the message with which anyio cancels a task."""

FORBIDDEN = {
    "stop": "stop the event loop",
    "set_default_executor": "replace the threads of the event loop",
    "shutdown_default_executor": "shut the threads of the event loop down",
    "set_task_factory": "set the task factory of the event loop",
}
"""Methods of the event loop that a handler may not call, since all tasks of the process share it."""


class MainTask(asyncio.Task[T]):
    """Asyncio task of the process itself. Handlers cannot cancel it, as one that cancels all tasks would."""

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task, unless the code of some handler asks for it."""
        return CURRENT_LEASE.get() is None and super().cancel(msg)


class _UncloseableCoroutine(Coroutine[Any, Any, T]):
    """Coroutine into which a task cannot throw GeneratorExit, as a future that ended with one makes it do.

    Python would close all coroutines below at once: none of them could await anything or return a value.
    """

    def __init__(self, inner: Coroutine[Any, Any, T]) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, Any, T]:
        return self._inner.__await__()

    def send(self, value: Any) -> Any:
        """Continue the coroutine."""
        return self._inner.send(value)

    def throw(self, error: Any, *_: Any) -> Any:
        """Continue the coroutine with an error."""
        if isinstance(error, GeneratorExit):
            contained = RuntimeError("something that the handler awaited raised GeneratorExit")
            contained.__cause__ = error
            error = contained
        return self._inner.throw(error)

    def close(self) -> None:
        """Close the coroutine."""
        self._inner.close()


class AttemptTask(asyncio.Task[T]):
    """Asyncio task of an attempt. Handlers of other tasks cannot cancel it.

    Args:
        lease: Lease of the attempt.
        began: Moment at which the attempt began, by `time.monotonic`.
        on_unstarted: Called with the task if it was canceled before its first step.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        lease: Lease,
        loop: asyncio.AbstractEventLoop,
        name: str,
        began: float = 0.0,
        on_unstarted: Callable[[asyncio.Task[T]], object] | None = None,
    ) -> None:
        super().__init__(_UncloseableCoroutine(coroutine), loop=loop, name=name)
        self.lease = lease
        self.began = began
        self._attempt = coroutine
        self._on_unstarted = on_unstarted

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task, unless the code of another task's handler asks for it.

        Cancel scopes of anyio, which handlers may share, cancel with a message of their own.
        """
        by_scope = isinstance(msg, str) and ANYIO_MARK in msg
        return (by_scope or CURRENT_LEASE.get() in (None, self.lease)) and self._cancel(msg)

    def stop(self) -> None:
        """Cancel the task for the worker, whatever code is running."""
        self._cancel()

    def _cancel(self, msg: Any = None) -> bool:
        if (
            self._on_unstarted is not None
            and inspect.getcoroutinestate(self._attempt) == inspect.CORO_CREATED
        ):
            # Its code never runs, so it cannot settle the attempt itself. Only now: a callback costs each task something.
            self.add_done_callback(self._on_unstarted)
            self._on_unstarted = None
        return super().cancel(msg)


def run_to_end(loop: asyncio.AbstractEventLoop, main: asyncio.Task[T]) -> T:
    """Run an event loop until a task is done, however often the loop is interrupted.

    asyncio lets SystemExit and KeyboardInterrupt through every task and callback to the caller of the loop, although the
    task that raised it has it as its error too. Loop and tasks are intact, so they continue.

    Args:
        loop: The event loop.
        main: The task.

    Returns:
        The task's result.

    Raises:
        BaseException: What the task raised, or what broke the loop for good while the task was not done.
    """
    main.add_done_callback(lambda _: loop.stop())
    while not main.done():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            log.warning("A handler raised %s in the event loop, which continues.", type(error).__name__)
    return main.result()


def protect_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse calls of handlers that would end or change the loop for the others: it belongs to the process."""
    if getattr(loop, PROTECTED_MARK, False):
        return
    setattr(loop, PROTECTED_MARK, True)
    for name, deed in FORBIDDEN.items():
        setattr(loop, name, _refusing(getattr(loop, name), deed))


def _refusing(method: Callable[..., Any], deed: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if CURRENT_LEASE.get() is not None:
            raise UsageError(f"A handler cannot {deed}, which other tasks share.")
        return method(*arguments, **options)

    return call

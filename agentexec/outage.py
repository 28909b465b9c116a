"""Failures in a row: how long to wait before the next try, and what to log.

Calls of a handler are repeated by one function, `wait_out`, while the database or Redis is away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from agentexec.errors import UnavailableError
from agentexec.task import CURRENT_LEASE, Lease

log = logging.getLogger("agentexec.outages")

T = TypeVar("T")

LONGEST_PAUSE = 2.0
"""Longest pause in seconds between two tries of a call that waits."""

LOOK_SECONDS = 0.1
"""Seconds after which a thread that waits looks whether its attempt has ended. An event for each attempt costs more."""

BLOCKED_LOOP_SECONDS = 30.0
"""Longest wait of a call that blocks its event loop for a lock or a connection: its holder may need that loop to go on."""

QUIET_SECONDS = 30.0
"""Seconds for which the same failure is not logged again, even if there was a success in between, and which an outage's next
reason waits."""


def backoff(failures: int, *, initial: float = 0.1, maximum: float = 5.0) -> float:
    """Return the seconds to wait after `failures` (1 or more) failures in a row.

    The wait doubles from `initial` up to `maximum`.
    """
    return min(maximum, initial * 2.0 ** min(failures - 1, 20))


class Outage:
    """Failures in a row of one loop: logs the first one, a changed reason and the recovery, and spaces the tries.

    A failure that comes back with the same message is logged again after QUIET_SECONDS. Another message within an outage is
    logged once the last line is as old.

    One thread owns an outage; the loop calls `failed` after each failure and `recovered` after each success.

    Args:
        log: Logger for the first failure and the recovery.
        recovered: Message logged when an outage ends; None logs nothing.
        level: Level of the first failure's message.
        maximum: Longest wait between two tries, in seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        recovered: str | None = None,
        level: int = logging.WARNING,
        maximum: float = 5.0,
    ) -> None:
        self._log = log
        self._recovered = recovered
        self._level = level
        self._maximum = maximum
        self.failures = 0
        """Failures since the last success."""
        self._told = False
        """True once this outage is in the log."""
        self._last_text = ""
        self._quiet_until = 0.0
        self._unexpected: set[str] = set()
        """Unexpected errors since the last success."""

    def failed(self, message: str, *args: object) -> float:
        """Note a failure, log it if it is the first or has another reason, and return the seconds before the next try.

        Up to a fifth of the wait is taken off at random, so that processes that failed together do not return together.
        """
        self.failures += 1
        text, now = message % args if args else message, time.monotonic()
        changed, quiet = text != self._last_text, now < self._quiet_until
        # A server that refuses some calls and answers others fails and recovers all the time. Reasons may alternate.
        if (changed and not quiet) if self._told else (changed or not quiet):
            self._log.log(self._level, message, *args)
            self._told, self._last_text, self._quiet_until = True, text, now + QUIET_SECONDS
        return self._wait()

    def failed_unexpectedly(self, message: str, *args: object) -> float:
        """Note an error that is not an outage, log it with its traceback, and return the seconds to wait.

        To be called in an except block. Each kind of error is logged once until the next success.
        """
        self.failures += 1
        kind = _kind(sys.exception())
        if kind not in self._unexpected:
            self._unexpected.add(kind)
            self._log.exception(message, *args)
            self._told = True
        return self._wait()

    def recovered(self) -> None:
        """Note a success, and log the recovery if there were failures before it."""
        if self._told and self._recovered is not None:
            self._log.info(self._recovered)
        self.failures = 0
        self._told = False
        self._unexpected.clear()

    def _wait(self) -> float:
        return backoff(self.failures, maximum=self._maximum) * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load, no secret


def repeat(
    stop: threading.Event,
    turn: Callable[[], float],
    outage: Outage,
    *,
    away: str,
    failed: str,
    first: float = 0.0,
) -> None:
    """Call `turn` until `stop` is set, each time after as many seconds as the call before has returned.

    Args:
        stop: Event that ends the loop.
        turn: Function to call. What it raises is noted by the outage, which then says how long to wait.
        outage: Outage of this loop.
        away: Message about an UnavailableError, with `%s` for it.
        failed: Message about any other error.
        first: Seconds until the first call.
    """
    wait = first
    while not stop.wait(wait):
        try:
            wait = turn()
        except UnavailableError as error:
            wait = outage.failed(away, error)
        except Exception:
            wait = outage.failed_unexpectedly(failed)
        else:
            outage.recovered()


def _kind(error: BaseException | None) -> str:
    """Return the class of an error and the line that raised it: its message may differ each time."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__qualname__} {place}"


class Patience:
    """Readiness of one attempt's calls to wait while a server is away. It ends with the attempt; safe for all threads.

    Args:
        lease: Lease of the attempt.
        check_lease: Called before a call is made again; raises LeaseLostError if the lease was lost in the outage.
    """

    def __init__(self, lease: Lease, check_lease: Callable[[Lease], object] = lambda _: None) -> None:
        self.lease = lease
        self._check_lease = check_lease
        self.deadline = math.inf
        """Moment at which the attempt's time is over, by `time.monotonic`."""
        self.ended = False
        """True once the attempt has ended: what it left behind in threads waits no longer."""

    def end(self) -> None:
        """End all waits: the attempt has ended, or was stopped."""
        self.ended = True

    def repeat(self, call: Callable[..., T], *arguments: object) -> T:
        """Make a call again. Raises LeaseLostError instead if another worker has the task meanwhile, or it was canceled."""
        self._check_lease(self.lease)
        return call(*arguments)

    def pause(self, seconds: float) -> None:
        """Block for some seconds, or until the attempt ends."""
        until = time.monotonic() + seconds
        while not self.ended and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))


PATIENCE: ContextVar[Patience | None] = ContextVar("agentexec_patience", default=None)
"""Patience of the attempt that runs the code; None in a script, in a web process, and where a wait would be in vain."""


class Tries:
    """Tries of one call.

    Args:
        patience: None if the first failure is the last.
        until: Moment after which no try begins.
        blocks_loop: The waits block an event loop.
    """

    def __init__(
        self, patience: Patience | None, until: float = math.inf, *, blocks_loop: bool = False
    ) -> None:
        self._patience = patience
        self._outage = Outage(log, level=logging.ERROR, maximum=LONGEST_PAUSE)
        self._began = time.monotonic()
        self._blocks_loop = blocks_loop
        self._deadline = until if patience is None else min(until, patience.deadline)

    def failed(self, error: UnavailableError) -> float:
        """Return the seconds to wait before the next try. Raises the error if there is none."""
        deadline = self._deadline
        if self._blocks_loop and error.contended:
            deadline = min(deadline, self._began + BLOCKED_LOOP_SECONDS)
        patience, left = self._patience, deadline - time.monotonic()
        if patience is None or patience.ended or left <= 0:
            raise error
        wait = self._outage.failed("%s Task %s waits until it is back.", error, patience.lease.agent_id)
        return min(wait, left)


def wait_out(call: Callable[..., T], *arguments: object, limit: float | None = None) -> T:
    """Make a blocking call; inside a task, again and again while a server is away.

    The waits end with the attempt and its timeout. Outside a task the first failure is raised.

    Args:
        call: May be made again although an earlier try has taken effect: a commit may not have been confirmed.
        *arguments: Arguments of the call.
        limit: Seconds after which the failure is raised; None for no limit but the attempt's.

    Raises:
        UnavailableError: The server is still away.
    """
    began, tries, patience = time.monotonic(), None, None
    while True:
        try:
            return call(*arguments) if patience is None else patience.repeat(call, *arguments)
        except UnavailableError as error:
            patience = current_patience()
            until = math.inf if limit is None else began + limit
            tries = tries or Tries(patience, until, blocks_loop=_runs_event_loop())
            seconds = tries.failed(error)
        if patience is not None:
            patience.pause(seconds)


async def wait_out_async(
    in_thread: Callable[..., Awaitable[T]],
    call: Callable[..., T],
    *arguments: object,
    patience: Patience | None = None,
    limit: float | None = None,
) -> T:
    """Make a blocking call as `wait_out` does, in a thread, without blocking the event loop.

    Args:
        in_thread: Runs a call with its arguments in a thread.
        call: See `wait_out`.
        *arguments: Arguments of the call.
        patience: Patience of the attempt; by default that of the running one.
        limit: See `wait_out`.
    """
    began, tries = time.monotonic(), None
    patience = patience or current_patience()
    while True:
        try:
            if tries is None or patience is None:
                return await in_thread(call, *arguments)
            return await in_thread(patience.repeat, call, *arguments)
        except UnavailableError as error:
            until = math.inf if limit is None else began + limit
            tries = tries or Tries(patience, until)
            seconds = tries.failed(error)
        await asyncio.sleep(seconds)


@contextmanager
def impatient() -> Generator[None]:
    """Let calls inside the block fail at once: they would wait for what the block holds."""
    token = PATIENCE.set(None)
    try:
        yield
    finally:
        PATIENCE.reset(token)


def lose_patience() -> None:
    """Let calls of the running context fail at once from here on, until it ends or `keeping_patience` is left."""
    PATIENCE.set(None)


@contextmanager
def keeping_patience() -> Generator[None]:
    """End with the block what `lose_patience` does in it."""
    token = PATIENCE.set(PATIENCE.get())
    try:
        yield
    finally:
        PATIENCE.reset(token)


def current_patience() -> Patience | None:
    """Return the patience of the attempt that runs the code; None outside a task."""
    patience = PATIENCE.get()
    # A child that a handler forks is like any other process.
    return patience if patience is not None and CURRENT_LEASE.get() == patience.lease else None


def _runs_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

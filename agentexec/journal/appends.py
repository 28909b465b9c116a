"""Group commit of the journal: facts that are recorded at the same moment share a transaction."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple
from uuid import UUID

from agentexec.errors import UnavailableError
from agentexec.journal.store import Append
from agentexec.journal.stores import journal_store
from agentexec.payloads.offloading import is_large
from agentexec.runtime import RUNTIME, Runtime

log = logging.getLogger("agentexec.journal")

BATCH = 200
"""Facts that share a transaction at most."""

BATCH_CHARS = 1_000_000
"""Characters of facts after which a transaction takes no further one."""


Answer = Callable[[bool], object]
"""Function that is called once a fact was written, with True, or cannot be written with others, with False."""


class _Waiting(NamedTuple):
    """A fact, and how to answer its caller."""

    append: Append
    answer: Answer
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context


class AppendQueue:
    """Queue of facts: one thread writes the facts of all tasks that came during the last transaction.

    A fact that comes alone is written at once. The facts that one turn of an event loop yields are written together.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._gathering: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Waiting]]
        self._gathering = weakref.WeakKeyDictionary()
        self._waiting: deque[_Waiting] = deque()
        self._writing = False

    def put(self, append: Append, answer: Answer) -> None:
        """Add a fact, which is written even if its caller is canceled. `answer` is called in the running event loop.

        A fact that is answered with False could not be written with others, or not now. The caller then appends it
        alone, and learns why.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            gathered = self._gathering.setdefault(loop, [])
        gathered.append(_Waiting(append, answer, loop, contextvars.copy_context()))
        if len(gathered) == 1:
            # After everything that this turn of the loop has left to do: that may record facts too.
            loop.call_soon(self._hand_over, loop)

    def close(self) -> None:
        """Do nothing: a queue holds no resource."""

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give what a loop has gathered to the thread that writes, which is started if there is none."""
        with self._lock:
            self._waiting.extend(self._gathering.pop(loop))
            must_write, self._writing = not self._writing, True
        if must_write:
            try:
                self._runtime.submit(self._write_all)
            except RuntimeError:  # The runtime was closed at this moment.
                while batch := self._next_batch():
                    _settle(batch, frozenset())

    def _write_all(self) -> None:
        """Write the facts that wait, and those that come meanwhile."""
        while batch := self._next_batch():
            _settle(batch, self._write([waiting.append for waiting in batch]))

    def _next_batch(self) -> list[_Waiting]:
        """Take the next facts that can share a transaction: no task's usage can be added to twice in one."""
        batch: list[_Waiting] = []
        spending: set[UUID] = set()
        chars = 0
        with self._lock:
            while self._waiting and len(batch) < BATCH and chars < BATCH_CHARS:
                append = self._waiting[0].append
                if append.usage is not None:
                    if append.lease.agent_id in spending:
                        break
                    spending.add(append.lease.agent_id)
                chars += len(append.fact.value)
                batch.append(self._waiting.popleft())
            if not batch:
                self._writing = False
        return batch

    def _write(self, batch: list[Append]) -> frozenset[int]:
        """Write facts in one transaction, and return the places of those that are recorded."""
        try:
            return journal_store(self._runtime).append_together(batch)
        except UnavailableError:
            return frozenset()
        except Exception as error:
            # One of the facts is the cause: alone, only that one fails.
            log.debug(
                "Facts that were to share a transaction are recorded one by one: %s", type(error).__name__
            )
            return frozenset()


def _settle(batch: Iterable[_Waiting], recorded: frozenset[int]) -> None:
    """Answer the callers, with one wake-up of each event loop."""
    answers: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, bool]]] = {}
    for place, waiting in enumerate(batch):
        answers.setdefault(waiting.loop, []).append((waiting, place in recorded))
    for loop, its in answers.items():
        try:
            loop.call_soon_threadsafe(_answer, its)
        except RuntimeError:
            continue  # The loop is closed, and nobody waits there any more.


def _answer(answers: Iterable[tuple[_Waiting, bool]]) -> None:
    for waiting, recorded in answers:
        waiting.context.run(waiting.answer, recorded)


async def record_append(
    append: Append,
    note: Callable[[], object],
    retry: Callable[..., Awaitable[Any]],
    unfinished: set[asyncio.Future[Any]],
) -> None:
    """Record a fact, a large value in the payload store first. If the caller is canceled meanwhile, all this still happens.

    Args:
        append: The fact with its value.
        note: Called once the fact is recorded.
        retry: Runs a blocking call in a thread, again while a server is away.
        unfinished: Futures that the attempt waits for.
    """
    if not is_large(append.fact.value):
        await append_with_others(append, note, functools.partial(retry, journal_store().append, *append))
        return
    work = asyncio.ensure_future(_record_large(append, note, retry))
    unfinished.add(work)
    work.add_done_callback(unfinished.discard)
    work.add_done_callback(_retrieve)
    await asyncio.shield(work)


async def _record_large(
    append: Append, note: Callable[[], object], retry: Callable[..., Awaitable[Any]]
) -> None:
    text = await retry(RUNTIME.offload, append.lease.agent_id, "journal", append.fact.value)
    stored = append._replace(fact=append.fact._replace(value=text))
    await append_with_others(stored, note, functools.partial(retry, journal_store().append, *stored))


def _retrieve(ended: asyncio.Future[Any]) -> None:
    """Take note of an error whose caller was canceled."""
    if not ended.cancelled():
        ended.exception()


async def append_with_others(
    append: Append, note: Callable[[], object], append_alone: Callable[[], Awaitable[None]]
) -> None:
    """Record a fact together with those of other tasks, or else alone, with the errors of `append_alone`.

    `note` is called once the fact is recorded. If the caller is canceled meanwhile, all this still happens.
    """
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go_on(recorded: bool) -> None:
        if recorded:
            try:
                note()
                _pass_on(done)
            except Exception as error:
                # Else this caller would wait forever, and those that are answered after it.
                _pass_on(done, error)
        else:
            alone = asyncio.ensure_future(write_alone())
            alone.add_done_callback(lambda ended: _pass_on_outcome(ended, done))

    async def write_alone() -> None:
        await append_alone()
        note()

    if append.usage is not None and append.usage.charge is not None:
        go_on(False)
    else:
        RUNTIME.get_shared(AppendQueue, lambda: AppendQueue(RUNTIME)).put(append, go_on)
    await done


def _pass_on_outcome(ended: asyncio.Task[None], done: asyncio.Future[None]) -> None:
    """Give the outcome of a write that was made alone to the caller, if it still waits."""
    if not ended.cancelled():
        _pass_on(done, ended.exception())
    elif not done.done():
        done.cancel()


def _pass_on(done: asyncio.Future[None], error: BaseException | None = None) -> None:
    """Let the caller go on, or raise an error there, if it still waits."""
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(None)

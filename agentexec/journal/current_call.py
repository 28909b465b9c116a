"""The call that the running code is inside of: its idempotency key and its transaction."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar
from uuid import uuid5

from sqlalchemy import Connection, exc
from sqlalchemy.orm import Session

from agentexec.db.clock import utc_now
from agentexec.db.errors import loses_transaction, reason_of
from agentexec.db.sqlite import note_lock_holder
from agentexec.db.transactions import has_single_writer, writing
from agentexec.errors import AgentexecError, UnavailableError, UsageError
from agentexec.journal.facts import Fact, FactKind
from agentexec.journal.recorder import Policy, Recorder
from agentexec.journal.store import insert_fact
from agentexec.journal.stores import journal_store
from agentexec.outage import impatient, lose_patience, wait_out
from agentexec.runtime import RUNTIME

log = logging.getLogger(__name__)

T = TypeVar("T")

TURN_POLL_SECONDS = 0.002
"""Seconds between two tries of a transactional call to begin."""


class Call:
    """A call that is being made, with what the code inside it can use.

    Args:
        recorder: The attempt's recorder; None outside a durable run.
        path: The call's path; outside a durable run its idempotency key.
        policy: The call's policy.
        inside: The call that this one is made in, if any.
    """

    def __init__(
        self, recorder: Recorder | None, path: str, policy: Policy, inside: Call | None = None
    ) -> None:
        self.path = path
        self.policy = policy
        self.inside = inside
        # A call within a transactional call shares its turn.
        self.has_turn = inside is not None and (inside.needs_turn or inside.has_turn)
        self.needs_turn = policy == "transactional" and not self.has_turn
        self._closed = False
        self._recorder = recorder
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        """Thread of the event loop that makes the call."""
        self._suspendable: Connection | None = None
        """The transaction while its block is open on that thread."""
        self._held: tuple[ExitStack, Connection] | None = None
        """The transaction between the end of its block and the end of the call."""
        self.gave_way = False
        """True if the transaction was rolled back for a blocking call on the same thread; `lost` has the reason."""
        self.lost: UnavailableError | None = None
        """Reason why the call's transaction was lost, without its fault: the call can be made again."""

    @property
    def key(self) -> str:
        """A text that is the same for this call in every attempt, and different for every other call."""
        if self._recorder is None:
            return self.path
        return str(uuid5(self._recorder.lease.agent_id, self.path))

    @contextmanager
    def transaction(self) -> Generator[Session]:
        """Open the call's transaction; see `ax.transaction`."""
        if self._held is not None:
            raise UsageError(
                "A call has one transaction; put all its effects into one ax.transaction() block."
            )
        with ExitStack() as stack, self._noting_loss():
            connection = wait_out(lambda: stack.enter_context(writing(RUNTIME.engine, limited=False)))
            # On a database with one writer, everything else in the block would wait for this transaction.
            waits = self._writing_alone(connection) if has_single_writer(RUNTIME.engine) else nullcontext()
            with Session(connection, join_transaction_mode="rollback_only") as session, waits:
                yield session
                session.flush()
            if self._recorder is None:
                return
            with self._lock:
                if self.lost is not None and self.gave_way:
                    raise self.lost
                if self._closed:
                    # The call was given up while its thread went on. It has no outcome, so it must have no effect.
                    raise UsageError("The call was canceled; its transaction is rolled back.")
                self._held = (stack.pop_all(), connection)

    @contextmanager
    def _writing_alone(self, connection: Connection) -> Generator[None]:
        """Keep the block from waiting for itself, and the call from being in the way of its own event loop."""
        if self._recorder is not None:  # others are not made again
            if threading.get_ident() == self._thread:
                self._suspendable = connection
            note_lock_holder(connection, self)
        try:
            with impatient():
                yield
        finally:
            self._suspendable = None
        if self._recorder is not None:
            # The lock stays until the call ends, so what the call writes elsewhere fails as it does in the block.
            lose_patience()

    def give_way(self) -> None:
        """Roll the transaction back if the event loop that the call needs waits for it; the call is made again then.

        Without that, a blocking call of another handler on the same loop would wait for a transaction that cannot end.
        """
        if threading.get_ident() != self._thread or self in enclosing_calls():
            return
        with self._lock:
            held, self._held = self._held, None
            if held is None and self._suspendable is None:
                return  # its block runs in another thread, or its commit does: it goes on without the loop
            self.gave_way = True
            self.lost = UnavailableError(
                "The transaction of a call was rolled back: it had SQLite's write lock while a call that blocks the event loop "
                "waited for it."
            )
            if held is not None:
                _undo(*held)
            elif self._suspendable is not None:
                # SQLAlchemy refuses all further statements in the block.
                self._suspendable.rollback()
        log.info(
            "The call %s is made again: it had SQLite's write lock, for which its event loop waited.",
            self.path,
        )

    @contextmanager
    def _noting_loss(self) -> Generator[None]:
        try:
            yield
        except (exc.DBAPIError, UnavailableError) as error:
            # Our own functions that write in the session have translated the driver's error.
            reason = error.__cause__ if isinstance(error, UnavailableError) else error
            if isinstance(reason, exc.DBAPIError) and loses_transaction(reason):
                self.lost = UnavailableError(f"The transaction of a call is lost: {reason_of(reason)}.")
            raise

    async def end(self, input_hash: str, outcome: str, *, failed: bool) -> None:
        """Record the outcome, in the call's own transaction if it has one and the call has not `failed`.

        Raises `lost` if the call is to be made again.
        """
        assert self._recorder is not None  # noqa: S101 - only calls with a journal end here
        if self.lost is not None and (failed or self.gave_way):
            raise self.lost
        if self._held is None or failed or not self._held[1].in_transaction():
            if self._held is not None:
                await _run_in_own_thread(self._roll_back)
            await self._recorder.record(self.path, FactKind.OUTCOME, input_hash, outcome)
            return
        fact = Fact(self.path, len(self._recorder.facts(self.path)), FactKind.OUTCOME, input_hash, outcome)
        try:
            await _run_in_own_thread(functools.partial(self._commit, fact))
        except UnavailableError as error:
            is_recorded = journal_store().is_recorded
            if not await self._recorder.write_with_retry(is_recorded, self._recorder.lease, fact):
                self.lost = error
                raise
        except AgentexecError as error:
            raise self._recorder.stop(error) from None
        self._recorder.add_fact(fact)

    async def close(self) -> None:
        """Roll the call's transaction back if it is still open, and refuse one that ends later."""
        with self._lock:
            self._closed = True
        if self._held is not None:
            await _run_in_own_thread(self._roll_back)

    def _roll_back(self) -> None:
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            _undo(*held)

    def _commit(self, fact: Fact) -> None:
        assert self._recorder is not None  # noqa: S101 - as above
        with self._lock:
            held, self._held = self._held, None
        if held is None:
            # It has given way, or the call was canceled, before this thread began.
            raise self.lost or UnavailableError("The transaction of a call was rolled back.")
        stack, connection = held
        with stack:
            lease = self._recorder.lease
            stored = fact._replace(value=RUNTIME.offload(lease.agent_id, "journal", fact.value))
            insert_fact(connection, lease, stored, None, utc_now(), was_users=True)


def _undo(stack: ExitStack, connection: Connection) -> None:
    connection.rollback()
    stack.close()


CURRENT_CALL: ContextVar[Call | None] = ContextVar("agentexec_call", default=None)
"""The call that the running code is inside of."""


def enclosing_calls() -> Iterator[Call]:
    """Yield the calls that the running code is inside of, the innermost first."""
    call = CURRENT_CALL.get()
    while call is not None:
        yield call
        call = call.inside


async def run_unrecorded(key: str, policy: Policy, make: Callable[[], Awaitable[T]]) -> T:
    """Make a call outside a durable run; `key` is its idempotency key, and its transaction commits by itself."""
    token = CURRENT_CALL.set(Call(None, key, policy))
    try:
        return await make()
    finally:
        CURRENT_CALL.reset(token)


class _SingleWriterTurn:
    """Lock that lets one transactional call of the process through at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def close(self) -> None:
        """Do nothing: the lock holds no resources."""


@asynccontextmanager
async def turn_of(call: Call) -> AsyncGenerator[None]:
    """On a database with a single writer, let the process's transactional calls run one after another.

    A transaction holds the only write lock until its call ends. A second tool that waited for the lock on the event
    loop would keep the first one from ending.
    """
    if not call.needs_turn or not has_single_writer(RUNTIME.engine):
        yield
        return
    lock = RUNTIME.get_shared(_SingleWriterTurn, _SingleWriterTurn).lock
    while not lock.acquire(blocking=False):  # noqa: ASYNC110 - tasks may run on several event loops
        await asyncio.sleep(TURN_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


async def _run_in_own_thread(call: Callable[[], None]) -> None:
    """Run a blocking call in a new thread: all shared ones may be waiting for the lock that the call releases."""
    threads = ThreadPoolExecutor(1)
    try:
        await asyncio.get_running_loop().run_in_executor(threads, call)
    finally:
        threads.shutdown(wait=False)


def idempotency_key() -> str:
    """Return a text that is the same whenever this very call is made again.

    Pass it to services that recognize repeated requests. Inside a tool or a step of a task it is derived from the
    task's agent_id and the call's place in it.

    Raises:
        UsageError: The code is not inside a tool or a step.
    """
    return _require_call("ax.idempotency_key()").key


@contextmanager
def transaction() -> Generator[Session]:
    """Open a SQLAlchemy Session whose effects are committed together with the outcome of the running call.

    The session is on agentexec's database. Use it once in each call of a tool or step with the policy
    "transactional", sync or async. The commit comes when the tool returns, so return soon: on SQLite nothing else can
    write until then, not even the call itself, which must enqueue or report before the block. An error inside the block, or one that the SDK turns into its own text for the model, rolls
    everything back. `session.commit()` commits nothing. If an outage of the database has rolled it back, the call is made
    again when the database is back. On SQLite it is also rolled back, and the call made again, if another handler makes a
    blocking call that writes on the same event loop: that would wait for a transaction whose end waits for the loop.

    Yields:
        The session.

    Raises:
        UsageError: The code is not inside such a call, or the call has had its transaction.
        UnavailableError: The database cannot be reached.
    """
    call = _require_call("ax.transaction()")
    if call.policy != "transactional":
        raise UsageError('ax.transaction() is for tools with @ax.tool_policy("transactional").')
    with call.transaction() as session:
        yield session


def _require_call(name: str) -> Call:
    call = CURRENT_CALL.get()
    if call is None:
        raise UsageError(f"{name} is for code inside a tool or a step; there is no call here.")
    return call

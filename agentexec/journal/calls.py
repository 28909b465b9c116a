"""Calls with an effect: intent before, outcome after, and a policy for those that were cut off in between."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from uuid import uuid5

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, Postponed, UsageError
from agentexec.journal.approvals import Question
from agentexec.journal.recorder import POLICIES, SCOPE, Policy, Recorder, Scope
from agentexec.journal.store import Fact, FactKind, digest, dump, insert_fact, open_transaction
from agentexec.runtime import RUNTIME

T = TypeVar("T")

TURN_WAIT = 0.002
"""Seconds between looks at whether a transactional call may begin."""

POLICY_MARK = "_agentexec_tool_policy"


class Decision(enum.Enum):
    """What to do about a call, given what is recorded of it."""

    ANSWER = "answer"
    RUN = "run"
    ASK = "ask"
    FAIL = "fail"


def decide(facts: Sequence[Fact], policy: Policy) -> Decision:
    """An outcome is the answer. A call that was cut off is its policy's matter; every other one is made."""
    last = facts[-1].kind if facts else None
    if last is FactKind.OUTCOME:
        return Decision.ANSWER
    # A transaction that has no outcome was rolled back.
    if last is FactKind.INTENT and policy in ("ask", "fail"):
        return Decision(policy)
    return Decision.RUN


class CallResult(NamedTuple, Generic[T]):
    """What a call gave. `failed`: it is the text of an error, and a transaction must not keep its effects."""

    value: T
    failed: bool = False


class CallSpec(Protocol[T]):
    """A kind of call: how to make it, and how its answer becomes JSON and comes back."""

    name: str
    arguments: Any
    records_intent: bool
    display_arguments: str
    """The arguments for a person to read."""

    async def make(self) -> CallResult[T]: ...
    def encode(self, answer: CallResult[T]) -> Any: ...
    def decode(self, value: Any) -> T: ...
    def interrupted_value(self) -> T: ...
    def rejected_value(self, message: str | None) -> T: ...


async def run_call(scope: Scope, path: str, spec: CallSpec[T], policy: Policy) -> T:
    """Make a call once: an outcome that is recorded is given again, a new one is recorded before it is given.

    Raises what the call raises, ReplayDivergedError, LeaseLostError, PayloadTooLargeError, WaitingForApproval.
    """
    recorder = scope.recorder
    input_hash = digest([spec.name, spec.arguments])
    recorder.require_same_input(path, 0, input_hash, f"the call {spec.name}")
    facts = recorder.facts(path)
    decision = decide(facts, policy)
    if decision is Decision.ANSWER:
        if scope.replay is not None:
            scope.replay.note_replayed()
        return spec.decode(json.loads(facts[-1].value))
    if scope.replay is not None:
        await scope.replay.note_live_work()
    if decision is Decision.ASK:
        allowed, message = await _may_repeat(scope, path, spec)
        if not allowed:
            value = spec.rejected_value(message)
            await recorder.record(path, FactKind.OUTCOME, input_hash, _dump(spec, CallResult(value)))
            return value
    if decision is Decision.FAIL:
        value = spec.interrupted_value()
        await recorder.record(path, FactKind.OUTCOME, input_hash, _dump(spec, CallResult(value)))
        return value
    # A call that is made again by somebody's leave begins anew: if it is cut off again, that is another question.
    begun = bool(facts) and facts[-1].kind is FactKind.INTENT and decision is not Decision.ASK
    if spec.records_intent and not begun:
        intent = {"name": spec.name, "arguments": spec.arguments, "policy": policy}
        await recorder.record(path, FactKind.INTENT, input_hash, dump(intent, f"The call {spec.name}"))
    call = Call(recorder, path, policy, inside=CALL.get())
    scope_token, call_token = SCOPE.set(scope.child_scope(path)), CALL.set(call)
    try:
        async with _turn(call):
            try:
                with recorder.active_calls.track(call):
                    answer = await spec.make()
                recorder.check()
                await call.end(spec, answer, input_hash)
            finally:
                await call.close()
    except (Exception, Postponed) as error:
        # What stops the attempt says nothing of the call: it stays a call that was cut off.
        recorder.check()
        if spec.records_intent:
            await recorder.record(path, FactKind.RAISED, input_hash, dump(type(error).__name__, "An error"))
        raise
    finally:
        CALL.reset(call_token)
        SCOPE.reset(scope_token)
    return answer.value


async def _may_repeat(scope: Scope, path: str, spec: CallSpec[Any]) -> tuple[bool, str | None]:
    """Whether a person lets a call be made again that was cut off; waits for the answer."""
    recorder = scope.recorder
    question = Question(
        path,
        len(recorder.facts(path)),
        "repeat",
        spec.name,
        spec.display_arguments,
        scope.approval_deadline(),
    )
    [verdict] = await recorder.wait_for_verdicts([question], enclosing_calls())
    return verdict.approved, verdict.message


class _Turnstile:
    """Lets one transactional call of the process through at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def _turn(call: Call) -> AsyncGenerator[None]:
    """On SQLite, transactional calls one after another.

    Its one write lock is held from a transaction's begin to the call's end. A second tool that waits for it on
    the event loop would keep the first one from ending.
    """
    if not call.needs_turn or RUNTIME.engine.dialect.name != "sqlite":
        yield
        return
    lock = RUNTIME.get_shared(_Turnstile, _Turnstile).lock
    while not lock.acquire(blocking=False):  # noqa: ASYNC110 - tasks may run on several event loops
        await asyncio.sleep(TURN_WAIT)
    try:
        yield
    finally:
        lock.release()


async def _apart(call: Callable[[], None]) -> None:
    """Run a blocking call in a thread of its own: the shared ones may all wait for the lock that it gives back."""
    threads = ThreadPoolExecutor(1)
    try:
        await asyncio.get_running_loop().run_in_executor(threads, call)
    finally:
        threads.shutdown(wait=False)


class Call:
    """A call that is being made: what the code inside it can ask for."""

    def __init__(
        self, recorder: Recorder | None, path: str, policy: Policy, inside: Call | None = None
    ) -> None:
        self.path = path
        self.policy = policy
        self.inside = inside
        # A call within a call has its turn from that one.
        self.has_turn = inside is not None and (inside.needs_turn or inside.has_turn)
        self.needs_turn = policy == "transactional" and not self.has_turn
        self._closed = False
        self._recorder = recorder
        self._lock = threading.Lock()
        self._held: tuple[ExitStack, Connection] | None = None

    @property
    def key(self) -> str:
        """The same for the same call in every attempt, and for no other call."""
        if self._recorder is None:
            return self.path
        return str(uuid5(self._recorder.lease.agent_id, self.path))

    @contextmanager
    def transaction(self) -> Generator[Session]:
        """See `transaction`."""
        if self._held is not None:
            raise UsageError(
                "A call has one transaction; put all its effects into one ax.transaction() block."
            )
        with ExitStack() as stack:
            connection = stack.enter_context(open_transaction(RUNTIME.engine))
            with Session(connection, join_transaction_mode="rollback_only") as session:
                yield session
                session.flush()
            if self._recorder is None:
                return
            with self._lock:
                if self._closed:
                    # The call was given up while its thread went on: without an outcome there may be no effect.
                    raise UsageError("The call was canceled; its transaction is rolled back.")
                self._held = (stack.pop_all(), connection)

    async def end(self, spec: CallSpec[T], answer: CallResult[T], input_hash: str) -> None:
        """Record the outcome, in the call's own transaction if it has one that is to be kept."""
        assert self._recorder is not None  # noqa: S101 - a call without a journal has no end
        try:
            value = _dump(spec, answer)
        except AgentexecError as error:
            raise self._recorder.stop(error) from None
        if self._held is None or answer.failed or not self._held[1].in_transaction():
            if self._held is not None:
                await _apart(self._roll_back)
            await self._recorder.record(self.path, FactKind.OUTCOME, input_hash, value)
            return
        fact = Fact(self.path, len(self._recorder.facts(self.path)), FactKind.OUTCOME, input_hash, value)
        try:
            await _apart(functools.partial(self._commit, fact))
        except AgentexecError as error:
            raise self._recorder.stop(error) from None
        self._recorder.add_fact(fact)

    async def close(self) -> None:
        """Undo what the call's transaction did, if it still waits, and let none begin."""
        with self._lock:
            self._closed = True
        if self._held is not None:
            await _apart(self._roll_back)

    def _roll_back(self) -> None:
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held[1].rollback()
            held[0].close()

    def _commit(self, fact: Fact) -> None:
        assert self._held is not None and self._recorder is not None  # noqa: S101 - as above
        stack, connection = self._held
        with stack:
            self._held = None
            insert_fact(connection, self._recorder.lease, fact, None, utc_now())


CALL: ContextVar[Call | None] = ContextVar("agentexec_call", default=None)
"""The call that the running code is inside of."""


def enclosing_calls() -> Iterator[Call]:
    """The calls that the running code is inside of, the innermost first."""
    call = CALL.get()
    while call is not None:
        yield call
        call = call.inside


def idempotency_key() -> str:
    """A text that is the same whenever this very call is made again, for services that recognise repeated requests.

    Inside a tool or a step of a task it is made of the task's agent_id and the call's place in it.
    Raises UsageError elsewhere.
    """
    return _current("ax.idempotency_key()").key


@contextmanager
def transaction() -> Generator[Session]:
    """A SQLAlchemy Session on agentexec's database, whose effects are committed together with the call's outcome.

    For a tool or step with the policy "transactional", once in each call, sync or async. The commit comes when the
    tool returns, so return soon: on SQLite nothing else can write until then. An error inside the block, or one
    that the SDK turns into its own text for the model, rolls everything back. `session.commit()` commits nothing.

    Raises UsageError outside such a call, UnavailableError.
    """
    call = _current("ax.transaction()")
    if call.policy != "transactional":
        raise UsageError('ax.transaction() is for tools with @ax.tool_policy("transactional").')
    with call.transaction() as session:
        yield session


def tool_policy(policy: Policy) -> Callable[[T], T]:
    """Say what happens to calls of a tool that were cut off: `@ax.tool_policy("idempotent")` above `@function_tool`.

    "fail" (the default): not made again; the model is told that the call was cut off. "idempotent": made again, with
    the same `ax.idempotency_key()`. "transactional": made again, because `ax.transaction()` was rolled back.
    "ask": a person decides.
    Raises UsageError for any other policy.
    """
    require_policy(policy)

    def mark(tool: T) -> T:
        setattr(tool, POLICY_MARK, policy)
        return tool

    return mark


def require_policy(policy: str) -> None:
    """Raise UsageError for an unknown policy."""
    if policy not in POLICIES:
        raise UsageError(f"There is no tool policy {policy!r}; the policies are {', '.join(POLICIES)}.")


def _current(name: str) -> Call:
    call = CALL.get()
    if call is None:
        raise UsageError(f"{name} is for code inside a tool or a step; there is no call here.")
    return call


def _dump(spec: CallSpec[T], answer: CallResult[T]) -> str:
    return dump(spec.encode(answer), f"The outcome of {spec.name}")


async def run_unrecorded(key: str, policy: Policy, make: Callable[[], Awaitable[T]]) -> T:
    """Make a call outside a durable run; `key` is its idempotency key, and its transaction commits by itself."""
    token = CALL.set(Call(None, key, policy))
    try:
        return await make()
    finally:
        CALL.reset(token)

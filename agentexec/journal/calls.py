"""Calls with an effect: intent before, outcome after, and a policy for those that were cut off in between."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from agentexec.errors import AgentexecError, PayloadTooLargeError, UnavailableError, UsageError
from agentexec.journal.canonical import digest
from agentexec.journal.current_call import CURRENT_CALL, Call, enclosing_calls, turn_of
from agentexec.journal.facts import Fact, FactKind, dump
from agentexec.journal.questions import Question, Verdict
from agentexec.journal.recorder import POLICIES, Policy, Scope
from agentexec.journal.scopes import SCOPE
from agentexec.journal.user_errors import contain_generator_exit
from agentexec.journal.verdicts import wait_for_verdicts
from agentexec.outage import Tries, keeping_patience
from agentexec.runtime import RUNTIME

T = TypeVar("T")

POLICY_MARK = "_agentexec_tool_policy"


class Decision(enum.Enum):
    """Decision about a call, given its records."""

    ANSWER = "answer"
    RUN = "run"
    ASK = "ask"
    FAIL = "fail"
    RAISE = "raise"


def decide(facts: Sequence[Fact], policy: Policy) -> Decision:
    """Decide about a call: a recorded outcome is its answer, its policy decides if it was cut off, else it is made."""
    last = facts[-1].kind if facts else None
    if last is FactKind.OUTCOME:
        return Decision.ANSWER
    # A transaction without an outcome was rolled back.
    if policy not in ("ask", "fail"):
        return Decision.RUN
    if last is FactKind.INTENT:
        return Decision(policy)
    if last is FactKind.RAISED and unrecordable_error(facts[-1]) is not None:
        return Decision.ASK if policy == "ask" else Decision.RAISE
    return Decision.RUN


def needs_intent(facts: Sequence[Fact], decision: Decision) -> bool:
    """Decide whether a call that is about to be made must record its intent first.

    A call re-run with approval records a new intent: if it is cut off again, that is a new question.
    """
    is_cut_off = bool(facts) and facts[-1].kind is FactKind.INTENT
    return not is_cut_off or decision is Decision.ASK


def unrecordable_error(fact: Fact) -> AgentexecError | None:
    """Return the error of a call that was made, but whose outcome could not be recorded; None for every other call."""
    value = json.loads(fact.value)
    if not isinstance(value, dict):
        return None
    kind = PayloadTooLargeError if value["error"] == PayloadTooLargeError.__name__ else AgentexecError
    return kind(f"{value['unrecordable']} An earlier attempt made the call; it is not made again.")


class CallResult(NamedTuple, Generic[T]):
    """Value of a call. If `failed`, it is the text of an error, and a transaction must not keep its effects."""

    value: T
    failed: bool = False


class CallSpec(Protocol[T]):
    """A kind of call: how to make it, and how its result becomes JSON and comes back."""

    name: str
    arguments: Any
    records_intent: bool
    records_cancellation: bool
    """False if a CancelledError of its own does not end the call, as its SDK makes an outcome of it."""
    display_arguments: str
    """The arguments for a person to read."""

    async def make(self) -> CallResult[T]:
        """Make the call."""
        ...

    async def make_again(self) -> None:
        """Make a call whose outcome is recorded again, for what it does in the process's memory."""
        ...

    def encode(self, answer: CallResult[T]) -> Any:
        """Return the result as a value that JSON can hold."""
        ...

    def decode(self, value: Any) -> T:
        """Return the value that `encode` made JSON of."""
        ...

    async def interrupted_value(self) -> T:
        """Return the value of a call that may have been made and must not be made again, or raise."""
        ...

    async def rejected_value(self, message: str | None) -> T:
        """Return the value of a call that a person rejected, or raise."""
        ...


async def run_call(scope: Scope, path: str, spec: CallSpec[T], policy: Policy) -> T:
    """Make a call once: return its recorded outcome, or record a new one before returning it.

    Raises what the call raises, ReplayDivergedError, LeaseLostError, PayloadTooLargeError, WaitingForApproval.
    """
    recorder = scope.recorder
    input_hash = digest([spec.name, spec.arguments])
    facts = recorder.facts(path)
    decision = decide(facts, policy)
    if RUNTIME.replay is not None:
        await _watch(scope, path, spec, decision)
    recorder.require_same_input(path, 0, input_hash, f"the call {spec.name}")
    recorder.passed.note_claimed(path)
    if decision is Decision.ANSWER:
        recorder.passed.note_answered(path)
        if scope.replay is not None:
            scope.replay.note_replayed()
        return await _answer(scope, path, spec, policy, facts[-1])
    if scope.replay is not None:
        await scope.replay.note_live_work()
    if decision is Decision.FAIL:
        return await _record_refusal(scope, path, spec, input_hash, await spec.interrupted_value())
    if decision is Decision.RAISE:
        raise recorder.stop(unrecordable_error(facts[-1]) or AgentexecError(spec.name))
    if decision is Decision.ASK:
        verdict = await _ask_to_repeat(scope, path, spec)
        if not verdict.approved:
            value = await spec.rejected_value(verdict.message)
            return await _record_refusal(scope, path, spec, input_hash, value)
    if spec.records_intent and needs_intent(facts, decision):
        intent = {"name": spec.name, "arguments": spec.arguments, "policy": policy}
        await recorder.record(path, FactKind.INTENT, input_hash, dump(intent, f"The call {spec.name}"))
    return await _make(scope, path, spec, policy, input_hash)


async def refuse_call(scope: Scope, path: str, spec: CallSpec[T], message: str) -> T:
    """Record that a call that has not begun is not made, with a message for the model, and return what it gets."""
    input_hash = digest([spec.name, spec.arguments])
    return await _record_refusal(scope, path, spec, input_hash, await spec.rejected_value(message))


async def _watch(scope: Scope, path: str, spec: CallSpec[Any], decision: Decision) -> None:
    """Let the watch over an offline replay compare a call with the record, and refuse one that is not recorded."""
    RUNTIME.replay.check_call(scope.recorder, path, spec.name, spec.arguments)
    if decision is not Decision.ANSWER:
        await RUNTIME.replay.refuse_live(scope.recorder, path, f"the call {spec.name}")
    RUNTIME.replay.note_answered(scope.recorder, path, len(scope.recorder.facts(path)) - 1)


async def _answer(scope: Scope, path: str, spec: CallSpec[T], policy: Policy, outcome: Fact) -> T:
    """Return the recorded value of a call, which is made again first if its effect is in the process's memory."""
    if policy == "in_memory":
        call = Call(scope.recorder, path, policy, inside=CURRENT_CALL.get())
        with _inside(scope, call), scope.recorder.active_calls.track(call):
            await spec.make_again()
        scope.recorder.check()
    return spec.decode(json.loads(outcome.value))


@contextmanager
def _inside(scope: Scope, call: Call) -> Generator[None]:
    """Let the code inside the block know the call that it is a part of."""
    scope_token, call_token = SCOPE.set(scope.child_scope(call.path)), CURRENT_CALL.set(call)
    try:
        with keeping_patience():
            yield
    finally:
        CURRENT_CALL.reset(call_token)
        SCOPE.reset(scope_token)


async def _ask_to_repeat(scope: Scope, path: str, spec: CallSpec[Any]) -> Verdict:
    """Wait for a person's verdict on whether to repeat a call that was cut off."""
    recorder = scope.recorder
    question = Question(
        path,
        len(recorder.facts(path)),
        "repeat",
        spec.name,
        spec.display_arguments,
        scope.approval_deadline(),
        scope.approval_terms(),
    )
    [verdict] = await wait_for_verdicts(recorder, [question], enclosing_calls())
    return verdict


async def _record_refusal(scope: Scope, path: str, spec: CallSpec[T], input_hash: str, value: T) -> T:
    """Record a value as the outcome of a call that is not made, and return it."""
    await scope.recorder.record(path, FactKind.OUTCOME, input_hash, _dump_outcome(spec, CallResult(value)))
    return value


async def _make(scope: Scope, path: str, spec: CallSpec[T], policy: Policy, input_hash: str) -> T:
    """Make a call and record its outcome, or that it raised. It is made again if its transaction was lost."""
    recorder = scope.recorder
    tries = Tries(recorder.patience)
    while True:
        call = Call(recorder, path, policy, inside=CURRENT_CALL.get())
        try:
            return await _try(scope, call, spec, input_hash)
        except _UndoneError as undone:
            seconds = 0.0 if call.gave_way else tries.failed(undone.reason)
        await asyncio.sleep(seconds)
        recorder.begin_again(path)


async def _try(scope: Scope, call: Call, spec: CallSpec[T], input_hash: str) -> T:
    """Make a call once. Raises _UndoneError if it has had no effect."""
    recorder, path, strand = scope.recorder, call.path, asyncio.current_task()
    try:
        with _inside(scope, call):
            async with turn_of(call):
                await recorder.confirm_lease()
                try:
                    with recorder.active_calls.track(call):
                        answer = await contain_generator_exit(spec.make())
                    recorder.check()
                    await call.end(input_hash, _dump_made_outcome(spec, answer), failed=answer.failed)
                finally:
                    await call.close()
    except _UnrecordableError as unrecordable:
        error = unrecordable.error
        if spec.records_intent:
            value = {"error": type(error).__name__, "unrecordable": str(error)}
            await recorder.record(path, FactKind.RAISED, input_hash, dump(value, "An error"))
        raise recorder.stop(error) from None
    except BaseException as error:
        if _is_cut_off(spec, strand, error):
            raise
        # An error that stops the attempt says nothing about the call, which stays one that was cut off.
        recorder.check()
        if call.lost is not None:
            raise _UndoneError(call.lost) from None
        if spec.records_intent:
            await recorder.record(path, FactKind.RAISED, input_hash, dump(type(error).__name__, "An error"))
        raise
    return answer.value


def _is_cut_off(spec: CallSpec[Any], strand: asyncio.Task[Any] | None, error: BaseException) -> bool:
    """Decide whether an error came to a call from outside: then it is unknown what the call would have done."""
    if isinstance(error, asyncio.CancelledError):
        return not spec.records_cancellation or strand is None or strand.cancelling() > 0
    return isinstance(error, GeneratorExit)


class _UnrecordableError(Exception):
    """The outcome of a call that was made cannot be recorded. It passes through the call's transaction, which it ends."""

    def __init__(self, error: AgentexecError) -> None:
        super().__init__(str(error))
        self.error = error


class _UndoneError(Exception):
    """A call is undone without its fault: all its effects were in its transaction."""

    def __init__(self, reason: UnavailableError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _dump_made_outcome(spec: CallSpec[T], answer: CallResult[T]) -> str:
    try:
        return _dump_outcome(spec, answer)
    except AgentexecError as error:
        raise _UnrecordableError(error) from None


def _dump_outcome(spec: CallSpec[T], answer: CallResult[T]) -> str:
    return dump(spec.encode(answer), f"The outcome of {spec.name}")


def tool_policy(policy: Policy) -> Callable[[T], T]:
    """Set what happens to calls of a tool that were cut off: `@ax.tool_policy("idempotent")` above `@function_tool`.

    Args:
        policy: One of
            "fail" (the default): the call is not made again, and the model is told that it was cut off;
            "idempotent": it is made again, with the same `ax.idempotency_key()`;
            "transactional": it is made again, because `ax.transaction()` was rolled back;
            "ask": a person decides;
            "in_memory": it is made again, also if it was not cut off, because what it does is lost with its process,
            such as adding tools to the agent. The model keeps the output that was recorded first.

    Returns:
        A decorator for the tool, or for the function that it is made of.

    Raises:
        UsageError: There is no such policy.
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

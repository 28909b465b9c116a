"""Calls with an effect: intent before, outcome after, and a policy for those that were cut off in between."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from agentexec.errors import AgentexecError, Postponed, UsageError
from agentexec.journal.approvals import Question, Verdict
from agentexec.journal.canonical import digest
from agentexec.journal.current_call import CURRENT_CALL, Call, enclosing_calls, turn_of
from agentexec.journal.facts import Fact, FactKind, dump
from agentexec.journal.recorder import POLICIES, SCOPE, Policy, Scope

T = TypeVar("T")

POLICY_MARK = "_agentexec_tool_policy"


class Decision(enum.Enum):
    """Decision about a call, given its records."""

    ANSWER = "answer"
    RUN = "run"
    ASK = "ask"
    FAIL = "fail"


def decide(facts: Sequence[Fact], policy: Policy) -> Decision:
    """Decide about a call: a recorded outcome is its answer, its policy decides if it was cut off, else it is made."""
    last = facts[-1].kind if facts else None
    if last is FactKind.OUTCOME:
        return Decision.ANSWER
    # A transaction without an outcome was rolled back.
    if last is FactKind.INTENT and policy in ("ask", "fail"):
        return Decision(policy)
    return Decision.RUN


def needs_intent(facts: Sequence[Fact], decision: Decision) -> bool:
    """Decide whether a call that is about to be made must record its intent first.

    A call re-run with approval records a new intent: if it is cut off again, that is a new question.
    """
    is_cut_off = bool(facts) and facts[-1].kind is FactKind.INTENT
    return not is_cut_off or decision is Decision.ASK


class CallResult(NamedTuple, Generic[T]):
    """Value of a call. If `failed`, it is the text of an error, and a transaction must not keep its effects."""

    value: T
    failed: bool = False


class CallSpec(Protocol[T]):
    """A kind of call: how to make it, and how its result becomes JSON and comes back."""

    name: str
    arguments: Any
    records_intent: bool
    display_arguments: str
    """The arguments for a person to read."""

    async def make(self) -> CallResult[T]:
        """Make the call."""
        ...

    def encode(self, answer: CallResult[T]) -> Any:
        """Return the result as a value that JSON can hold."""
        ...

    def decode(self, value: Any) -> T:
        """Return the value that `encode` made JSON of."""
        ...

    def interrupted_value(self) -> T:
        """Return the value of a call that may have been made and must not be made again, or raise."""
        ...

    def rejected_value(self, message: str | None) -> T:
        """Return the value of a call that a person rejected, or raise."""
        ...


async def run_call(scope: Scope, path: str, spec: CallSpec[T], policy: Policy) -> T:
    """Make a call once: return its recorded outcome, or record a new one before returning it.

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
    if decision is Decision.FAIL:
        return await _record_refusal(scope, path, spec, input_hash, spec.interrupted_value())
    if decision is Decision.ASK:
        verdict = await _ask_to_repeat(scope, path, spec)
        if not verdict.approved:
            return await _record_refusal(scope, path, spec, input_hash, spec.rejected_value(verdict.message))
    if spec.records_intent and needs_intent(facts, decision):
        intent = {"name": spec.name, "arguments": spec.arguments, "policy": policy}
        await recorder.record(path, FactKind.INTENT, input_hash, dump(intent, f"The call {spec.name}"))
    return await _make(scope, path, spec, policy, input_hash)


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
    )
    [verdict] = await recorder.wait_for_verdicts([question], enclosing_calls())
    return verdict


async def _record_refusal(scope: Scope, path: str, spec: CallSpec[T], input_hash: str, value: T) -> T:
    """Record a value as the outcome of a call that is not made, and return it."""
    await scope.recorder.record(path, FactKind.OUTCOME, input_hash, _dump_outcome(spec, CallResult(value)))
    return value


async def _make(scope: Scope, path: str, spec: CallSpec[T], policy: Policy, input_hash: str) -> T:
    """Make a call and record its outcome, or that it raised."""
    recorder = scope.recorder
    call = Call(recorder, path, policy, inside=CURRENT_CALL.get())
    scope_token, call_token = SCOPE.set(scope.child_scope(path)), CURRENT_CALL.set(call)
    try:
        async with turn_of(call):
            try:
                with recorder.active_calls.track(call):
                    answer = await spec.make()
                recorder.check()
                await call.end(input_hash, _dump_or_stop(scope, spec, answer), failed=answer.failed)
            finally:
                await call.close()
    except (Exception, Postponed) as error:
        # An error that stops the attempt says nothing about the call, which stays one that was cut off.
        recorder.check()
        if spec.records_intent:
            await recorder.record(path, FactKind.RAISED, input_hash, dump(type(error).__name__, "An error"))
        raise
    finally:
        CURRENT_CALL.reset(call_token)
        SCOPE.reset(scope_token)
    return answer.value


def _dump_or_stop(scope: Scope, spec: CallSpec[T], answer: CallResult[T]) -> str:
    """Return an outcome as JSON text. One that cannot be recorded stops the attempt."""
    try:
        return _dump_outcome(spec, answer)
    except AgentexecError as error:
        raise scope.recorder.stop(error) from None


def _dump_outcome(spec: CallSpec[T], answer: CallResult[T]) -> str:
    return dump(spec.encode(answer), f"The outcome of {spec.name}")


def tool_policy(policy: Policy) -> Callable[[T], T]:
    """Set what happens to calls of a tool that were cut off: `@ax.tool_policy("idempotent")` above `@function_tool`.

    Args:
        policy: One of
            "fail" (the default): the call is not made again, and the model is told that it was cut off;
            "idempotent": it is made again, with the same `ax.idempotency_key()`;
            "transactional": it is made again, because `ax.transaction()` was rolled back;
            "ask": a person decides.

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

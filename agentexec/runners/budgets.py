"""Budgets at a model call: what it is expected to cost is reserved before, and what it has cost is recorded with its response."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import logging
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from uuid import UUID

from agentexec.activity.changes.reports import update
from agentexec.arguments.budgets import NANOS, format_amount, short_title
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, BudgetExceededError, UnavailableError, UsageError
from agentexec.journal.current_call import enclosing_calls
from agentexec.journal.facts import Usage, fit_path
from agentexec.journal.ledger import Charge
from agentexec.journal.questions import MOOT, RAISE_BUDGET, Question, RefusedLimit
from agentexec.journal.recorder import Recorder
from agentexec.journal.reservations import Account, Claim, Hold, Refusal, read_labels, release, reserve
from agentexec.journal.scopes import SCOPE
from agentexec.journal.verdicts import wait_for_verdicts
from agentexec.llm.prices import MILLION, ModelPrice, price_of
from agentexec.runtime import RUNTIME

log = logging.getLogger("agentexec.budgets")

ANSWER_TOKENS = 500
"""Expected tokens of an answer, before a process has seen one of the model."""

OUTLIER = 4
"""Times the mean that one answer counts for at most."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two looks whether calls in flight have left enough."""

WRAP_UP_MESSAGE = "The budget is used up; summing up."

BUDGET_PROMPT = (
    "Your budget is used up and your tools are gone. Answer now, as completely as you can, with what you have found "
    "out so far, and say what is missing."
)
"""Text for an agent that has used up its budget."""

MAX_MODELS = 200
"""Models of which a process remembers how many tokens they take."""


class TokenMeans:
    """Means of what the calls of each model took, as this process has seen them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, float, int, int]] = {}

    def close(self) -> None:
        """Do nothing: the means hold no resources."""

    def expect(self, model: str, estimated_input: float, max_output: int | None) -> tuple[int, int]:
        """Return the input and output tokens that a call is expected to take."""
        calls, estimated, input_tokens, output_tokens = self._seen.get(model, (0, 0.0, 0, 0))
        if estimated:
            # Languages and tools differ in characters per token; an odd server must not make calls free.
            estimated_input *= min(4.0, max(0.5, input_tokens / estimated))
        learned = -(-output_tokens // calls) if calls else ANSWER_TOKENS
        return round(estimated_input) + 1, max_output if max_output is not None else max(1, learned)

    def note(self, usage: Usage, model: str, estimated_input: float) -> None:
        """Learn from a call."""
        with self._lock:
            if model not in self._seen and len(self._seen) >= MAX_MODELS:
                self._seen.clear()
            calls, estimated, input_tokens, output_tokens = self._seen.get(model, (0, 0.0, 0, 0))
            # One absurd number must not make all later calls too dear.
            most = OUTLIER * max(ANSWER_TOKENS, output_tokens // calls if calls else 0)
            self._seen[model] = (
                calls + 1,
                estimated + estimated_input,
                input_tokens + max(0, usage.input_tokens),
                output_tokens + min(max(0, usage.output_tokens), most),
            )


def token_means() -> TokenMeans:
    """Return the means of this process."""
    return RUNTIME.get_shared(TokenMeans, TokenMeans)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A model call that is about to be made. `path` and `seq` are its place in the journal."""

    model: str
    path: str
    seq: int
    estimated_input: float
    max_output: int | None
    may_wrap_up: bool = False
    """True if its run may make one last call beyond the limit."""
    is_made: bool = False
    """True if an earlier attempt has made the call and this one only fetches its response, which costs the same."""
    was_wrap_up: bool = False
    """True if that call was its run's last one."""


class CallBudget:
    """Reservation of one model call. Leaving the block without a recorded response gives it back."""

    def __init__(
        self,
        call: ModelCall | None = None,
        hold: Hold | None = None,
        price: ModelPrice | None = None,
        *,
        wraps_up: bool = False,
    ) -> None:
        self._call = call
        self._hold = hold
        self._price = price
        self.wraps_up = wraps_up
        """True if the call is the last one of its run, which goes without tools."""

    def charged(self, usage: Usage) -> Usage:
        """Return the usage of the call's response with what it costs."""
        if self._hold is None or self._call is None:
            return usage
        token_means().note(usage, self._call.model, self._call.estimated_input)
        tokens = usage.input_tokens + usage.output_tokens
        charge = Charge(*self._hold, _nanos(self._price, usage), tokens)
        return usage._replace(charge=charge)

    def settled(self) -> None:
        """Note that the response is recorded, and with it the charge."""
        self._hold = None

    def __enter__(self) -> CallBudget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            RUNTIME.submit(lambda: _try_to_release(hold))


def _try_to_release(hold: Hold) -> None:
    """Give back a reservation. If that fails, it counts until the attempt ends."""
    try:
        release(RUNTIME.engine, hold)
    except UnavailableError as error:
        log.debug("%s A reservation stays until its task has ended.", error)


def _nanos(price: ModelPrice | None, usage: Usage) -> int:
    if price is None:
        return 0
    cached = price.input if price.cached_input is None else price.cached_input
    dollars = (usage.input_tokens - usage.cached_tokens) * price.input + usage.cached_tokens * cached
    return max(0, round((dollars + usage.output_tokens * price.output) * (NANOS / MILLION)))


async def reserve_call(recorder: Recorder, call: ModelCall) -> CallBudget:
    """Reserve what a call is expected to cost. While only calls in flight stand in its way, this waits for them.

    At the limit, the task's policy decides. Raises BudgetExceededError, or UsageError for a budget in dollars and a model
    without a price; both end the attempt. Raises WaitingForApproval while a person is asked.
    """
    if not recorder.budget.is_limited(CONF.budgets):
        return CallBudget()
    price = price_of(call.model, CONF.model_prices, use_list_prices=CONF.list_prices)
    input_tokens, output_tokens = token_means().expect(call.model, call.estimated_input, call.max_output)
    expected = Usage(call.model, 1, input_tokens, 0, output_tokens)
    claim = Claim(call.path, call.seq, _nanos(price, expected), input_tokens + output_tokens, call.is_made)
    policy, asked = recorder.budget.task.on_budget or "fail", 0
    while True:
        outcome = await _reserve(recorder, call.model, price, claim)
        if not isinstance(outcome, Refusal):
            return CallBudget(
                call, outcome, price, wraps_up=call.was_wrap_up if call.is_made else claim.is_forced
            )
        if policy == "wrap_up" and call.may_wrap_up:
            await add_log_line(recorder.lease.agent_id, WRAP_UP_MESSAGE)
            claim = dataclasses.replace(claim, is_forced=True)
        elif policy == "ask":
            approved, asked = await _ask(recorder, call, outcome, asked)
            claim = dataclasses.replace(claim, raises={**claim.raises, **approved})
        else:
            raise recorder.stop(_exceeded(recorder, outcome, call.model))


async def _reserve(
    recorder: Recorder, model: str, price: ModelPrice | None, claim: Claim
) -> Hold | Refusal | None:
    """Reserve a call's cost when calls in flight allow; None if it counts for no account."""
    pause = FIRST_PAUSE
    with recorder.active_calls.track(object()):
        while True:
            accounts = await _accounts(recorder)
            if not accounts:
                return None
            _require_price(recorder, accounts, model, price)
            outcome = await recorder.write_with_retry(
                reserve, RUNTIME.engine, recorder.lease, accounts, claim, utc_now()
            )
            if isinstance(outcome, Hold) or not outcome.may_pass:
                return outcome
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def _ask(
    recorder: Recorder, call: ModelCall, refusal: Refusal, number: int
) -> tuple[dict[str, tuple[str, int]], int]:
    """Ask a person to raise a limit by its declared amount; return the raise, and the number of the next question.

    An answer that another limit or a retry of the task has superseded raises nothing: the call is tried again. Raises BudgetExceededError if the raise is rejected, WaitingForApproval until somebody decides.
    """
    account = refusal.account
    arguments = {
        "budget": _owner(account, recorder),
        "limit": format_amount(account.limit.unit, refusal.limit),
        "spent": format_amount(account.limit.unit, refusal.spent),
        "next_call": format_amount(account.limit.unit, refusal.wanted),
        "raise_by": str(account.limit),
    }
    scope = SCOPE.get()
    deadline = None if scope is None else scope.approval_deadline()
    text = json.dumps(arguments, ensure_ascii=False)
    terms = recorder.approvals.terms()
    again = f"_{number + 1}" if number else ""
    path = fit_path(f"{call.path}/budget_{call.seq}_{zlib.crc32(account.name.encode()):08x}{again}")
    refused = RefusedLimit(account.name, refusal.limit)
    question = Question(path, 0, "approval", RAISE_BUDGET, text, deadline, terms, refused)
    [verdict] = await wait_for_verdicts(recorder, [question], enclosing_calls())
    if verdict.is_superseded:
        return {}, number + (verdict.status != MOOT)
    if not verdict.approved:
        raise recorder.stop(_exceeded(recorder, refusal, call.model))
    key = f"{recorder.lease.agent_id}/{path}#0"
    return {key: (account.name, account.limit.amount)}, number + 1


async def add_log_line(agent_id: UUID, message: str) -> None:
    """Add a line to the task's log; a lost one must not stop the work."""
    in_context = contextvars.copy_context().run
    try:
        await RUNTIME.run_in_thread(in_context, update, agent_id, message, None)
    except AgentexecError as error:
        log.warning("A report of task %s is lost: %s", agent_id, error)


async def _accounts(recorder: Recorder) -> Sequence[Account]:
    budget = recorder.budget
    if budget.labels is None:
        # Only windows by a label need the task's metadata.
        needs_labels = any(not entry.strip().startswith("*") for entry in CONF.budgets.split(";"))
        budget.labels = (
            await recorder.write_with_retry(read_labels, RUNTIME.engine, recorder.lease)
            if CONF.budgets and needs_labels
            else {}
        )
    return budget.accounts(recorder.lease, CONF.budgets, budget.labels, utc_now())


def _require_price(
    recorder: Recorder, accounts: Sequence[Account], model: str, price: ModelPrice | None
) -> None:
    if price is None and any(account.limit.unit == "dollars" for account in accounts):
        error: AgentexecError = UsageError(
            f"Task {recorder.lease.agent_id} has a budget in dollars and {model} has no price; set it in "
            'AGENTEXEC_MODEL_PRICES, or give a budget in tokens, like budget="500000 tokens".'
        )
        raise recorder.stop(error)


def _exceeded(recorder: Recorder, refusal: Refusal, model: str) -> BudgetExceededError:
    unit, lease = refusal.account.limit.unit, recorder.lease
    whole = 1 if unit == "tokens" else NANOS
    limit, spent, wanted = (
        format_amount(unit, amount) for amount in (refusal.limit, refusal.spent, refusal.wanted)
    )
    reserved = f", {format_amount(unit, refusal.reserved)} reserved" if refusal.reserved else ""
    return BudgetExceededError(
        f"{_owner(refusal.account, recorder)} is at its budget of {limit} ({spent} spent{reserved}): the next call of {model}, "
        f"expected to take {wanted}, was not made; raise the budget and retry the task.",
        agent_id=lease.agent_id,
        budget=refusal.account.name,
        spent=refusal.spent / whole,
        reserved=refusal.reserved / whole,
        limit=refusal.limit / whole,
    )


def _owner(account: Account, recorder: Recorder) -> str:
    if account.agent_id is None:
        title = "All tasks together" if account.title == "*" else short_title(account.title)
        return f"{title} per {account.period}"
    if account.agent_id == recorder.lease.agent_id:
        return f"Task {account.agent_id}"
    return f"Parent task {account.agent_id}"

"""The journal of one attempt: recorded facts are answered from memory, new ones are appended.

A handler runs again from its top. Its runs and calls are told apart by **paths**: a run's path is that of the code
that starts it, the agent's name and an ordinal; a call's path is its run's path and the call's id. The same code
gives the same paths in every attempt.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar
from uuid import UUID

from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, ReplayDivergedError
from agentexec.journal.appends import record_append
from agentexec.journal.attempt_approvals import AttemptApprovals
from agentexec.journal.budgets import AttemptBudget
from agentexec.journal.facts import ANY_INPUT, Fact, FactKind, Usage, fit_path
from agentexec.journal.passed import Passed
from agentexec.journal.questions import Terms
from agentexec.journal.scopes import SCOPE, current_scope
from agentexec.journal.spending import count_usage
from agentexec.journal.store import Append, check_lease, load_facts
from agentexec.journal.waiting import POLL_SECONDS, QUIET_SECONDS, ActiveCalls, OpenWaits
from agentexec.outage import PATIENCE, Patience, wait_out_async
from agentexec.runtime import RUNTIME
from agentexec.task import CURRENT_LEASE, Lease
from agentexec.telemetry.names import JOURNAL_APPENDS

T = TypeVar("T")

Policy = Literal["idempotent", "ask", "fail", "transactional", "in_memory"]

Strand = weakref.ref[object]
"""The asyncio task or thread that runs a piece of code from its top to its end.

Weak, because an asyncio task holds its context and with it the scope: a strong one would make a reference cycle.
"""

POLICIES: tuple[Policy, ...] = ("idempotent", "ask", "fail", "transactional", "in_memory")


SETTLE_SECONDS = 4.0
"""Seconds that requests under way get, when their attempt fails or is stopped, to bring what they are recorded by."""


class Recorder:
    """Memory of one attempt: the facts that earlier attempts recorded, and those that it adds.

    One handler uses it, which may spread over several threads and event loops.
    """

    def __init__(self, lease: Lease, attempt: int = 1, failures: int = 0) -> None:
        self.lease = lease
        self.attempt = attempt
        self.started = time.time()
        """When the attempt began, in seconds since the epoch."""
        self.failures = failures
        """Number of earlier attempts that raised; the others crashed or were handed back."""
        self.is_step_based = False
        """True if the handler consists of recorded steps, so that running it again costs little."""
        self.local_waits = 0
        """Number of waits for results of other tasks. Only this process hears of those results."""
        self.repeats = lease.epoch > 1
        """True if the code may have come before to where it is: in an earlier attempt, or in a call that is made again."""
        self.fault: AgentexecError | None = None
        """The error that must end this attempt. Kept, because an agent's SDK would report it to the model and go on."""
        self.patience = Patience(lease, lambda lease: check_lease(RUNTIME.engine, lease))
        """Readiness of this attempt's calls to wait for servers that are away."""
        self.active_calls = ActiveCalls()
        self.unfinished: set[asyncio.Future[Any]] = set()
        """Requests under way that are paid for: the attempt ends after what they bring is recorded."""
        self.waits = OpenWaits()
        self.budget = AttemptBudget()
        self.passed = Passed()
        self.earlier_facts: Sequence[Fact] = ()
        """The facts of earlier attempts."""
        self.changes: dict[str, bool] = {}
        """Answers about changes of the code, see `journal.changed`."""
        self.changes_lock = threading.Lock()
        self.approvals = AttemptApprovals()
        self.runs: dict[tuple[str, str], Any] = {}
        """The latest run of each agent at each path, in the form that its runner keeps."""
        self.sessions: set[tuple[str, str]] = set()
        """Sessions that this attempt uses, in the form that its runner keeps."""
        self.session_copies: dict[str, Any] = {}
        """Copies of sessions that a fork works with, likewise."""
        self.conversation: str | None = None
        """The conversation whose turn this is; None for other tasks."""
        self._facts: dict[str, list[Fact]] = {}
        self._loaded = False
        self._claimed: dict[str, set[int]] = defaultdict(set)
        self._unclaimed: set[str] = set()
        self._ordinals: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Read the task's journal, once per attempt. Waits while the database is unavailable."""
        if not self._loaded:
            with self.active_calls.track(object()):
                await self._retry_while_unavailable(self.load)

    def facts(self, path: str) -> list[Fact]:
        """Return the facts recorded at a path; call `open` first."""
        self.check()
        return self._facts.get(path, [])

    def has_nested_facts(self, path: str) -> bool:
        """Return True if anything is recorded that happened inside the call at a path."""
        return any(recorded.startswith(f"{path}/") for recorded in self._facts)

    def facts_of(self, kind: FactKind) -> list[Fact]:
        """Return the facts of a kind, at any path; call `open` first."""
        self.check()
        with self._lock:
            return [fact for facts in self._facts.values() for fact in facts if fact.kind is kind]

    def check(self) -> None:
        """Raise the error that stopped this attempt, if one did."""
        if self.fault is not None:
            raise self.fault from None

    def stop(self, fault: AgentexecError) -> AgentexecError:
        """Let nothing more happen in this attempt; return the error that stopped it, which is the first one."""
        self.fault = self.fault or fault
        return self.fault

    def claim_path(self, parent: str, name: str, input_hash: str, what: str, *, ordered: bool) -> str:
        """Return the path of the next run or step with this name under a parent.

        Among recorded paths that are not claimed yet, the first with the same input is taken: branches that run side
        by side may start in another order than before. If none has the same input, it depends on `ordered`. Code that
        runs in a fixed order has diverged, which raises ReplayDivergedError. For a branch, the recorded paths may
        belong to branches that start later, so it gets a new path.
        """
        self.check()
        stem = f"{parent}/{name}#" if parent else f"{name}#"
        with self._lock:
            ordinal = self._choose_ordinal(stem, input_hash, ordered)
            self._claimed[stem].add(ordinal)
            path = fit_path(f"{stem}{ordinal}")
            self._unclaimed.discard(path)
        self.passed.note_claimed(path)
        self.require_same_input(path, 0, input_hash, what)
        return path

    def _choose_ordinal(self, stem: str, input_hash: str, ordered: bool) -> int:
        """Return the ordinal that `claim_path` takes. If it must diverge, that of the first recorded path."""
        first_mismatch: int | None = None
        for ordinal in itertools.count(1):
            if ordinal in self._claimed[stem]:
                continue
            recorded = self._facts.get(fit_path(f"{stem}{ordinal}"))
            if not recorded:
                return first_mismatch if first_mismatch is not None and ordered else ordinal
            if recorded[0].input_hash in (input_hash, ANY_INPUT):
                return ordinal
            first_mismatch = first_mismatch or ordinal
        raise AssertionError("unreachable: the count has no end")

    @property
    def unclaimed_paths(self) -> list[str]:
        """Paths at the top of the handler that earlier attempts recorded and this one has not claimed."""
        with self._lock:
            return sorted(self._unclaimed) if self._unclaimed else []

    def next_ordinal(self, stem: str) -> int:
        """Return how many times this attempt has come to a place, from 1, to tell identical siblings apart."""
        with self._lock:
            self._ordinals[stem] += 1
            return self._ordinals[stem]

    def begin_again(self, path: str) -> None:
        """Let the code inside a call start again: it finds its steps, children and changes as in another attempt."""
        with self._lock:
            self.repeats = True
            for places in (self._ordinals, self._claimed):
                for stem in [stem for stem in places if stem.startswith(f"{path}/")]:
                    del places[stem]

    def require_same_input(self, path: str, seq: int, input_hash: str, what: str) -> None:
        """Raise ReplayDivergedError if the fact at this place was recorded with another input."""
        facts = self.facts(path)
        if seq < len(facts) and facts[seq].input_hash not in (input_hash, ANY_INPUT):
            raise self.stop(
                ReplayDivergedError(
                    f"Task {self.lease.agent_id} went another way than in an earlier attempt: {what} ({path}) now has "
                    "another input than was recorded; make the handler's inputs depend on its context alone (no clock, "
                    "no random values, nothing that changes between attempts), or fetch what changes in runner.step().",
                    agent_id=self.lease.agent_id,
                    path=path,
                )
            )

    @property
    def is_lease_certain(self) -> bool:
        """True if `confirm_lease` would only look at the clock."""
        leases = RUNTIME.leases
        return self.fault is None and (leases is None or leases.is_certain(self.lease))

    async def confirm_lease(self) -> None:
        """Make sure that no other worker has the task; to be awaited right before whatever costs or acts.

        A process may have been frozen for longer than its lease and not know it. As long as its leases were renewed not
        long ago this is a look at the clock. Otherwise the servers are asked, and LeaseLostError ends the attempt.
        """
        if not self.is_lease_certain:
            self.check()
            if (leases := RUNTIME.leases) is not None:
                await self.write_with_retry(leases.confirm, self.lease)

    async def record(
        self, path: str, kind: FactKind, input_hash: str, value: str, usage: Usage | None = None
    ) -> None:
        """Append a fact. Waits while the database is unavailable; raises LeaseLostError, which ends the attempt.

        If the caller is canceled while the fact is written, the write still completes.
        """
        self.check()
        fact = Fact(path, len(self.facts(path)), kind, input_hash, value)
        append = Append(self.lease, fact, usage, utc_now())
        # A run that writes counts as active, however slow the database is.
        with self.active_calls.track(object()):
            note = functools.partial(self._note_append, append)
            await record_append(append, note, self.write_with_retry, self.unfinished)

    def _note_append(self, append: Append) -> None:
        self.add_fact(append.fact)
        if append.usage is not None and RUNTIME.meter is not None:
            count_usage(RUNTIME.meter, append.usage)

    async def poll(self) -> AsyncGenerator[bool]:
        """Yield whenever it is time to check for an awaited answer or event: True if the task may leave its worker.

        It may leave if nothing else was in progress at this check and at the last one. Use this inside
        `active_calls.suspend`. Raises the error that stopped this attempt.
        """
        idle = False
        while True:
            self.check()
            idle_now = self.active_calls.idle and not self.local_waits
            yield idle and idle_now
            idle = idle_now
            await asyncio.sleep(QUIET_SECONDS if idle else POLL_SECONDS)

    async def write_with_retry(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking call in a thread, repeated while the database is unavailable; its errors stop the attempt."""
        try:
            return await self._retry_while_unavailable(call, *arguments)
        except AgentexecError as error:
            raise self.stop(error) from None

    def add_fact(self, fact: Fact) -> None:
        """Remember a fact that is in the database."""
        if RUNTIME.meter is not None:
            RUNTIME.meter.add(JOURNAL_APPENDS, fact.kind.value)
        with self._lock:
            self._facts.setdefault(fact.path, []).append(fact)

    def load(self) -> None:
        """Read the task's journal, once per attempt: `open` for code in a thread. Raises UnavailableError."""
        with self._lock:
            if not self._loaded:
                facts: dict[str, list[Fact]] = defaultdict(list)
                # The first epoch of a task is its first start, so nothing can be recorded yet.
                if self.lease.epoch > 1:
                    self.earlier_facts = load_facts(RUNTIME.engine, self.lease.agent_id)
                for fact in self.earlier_facts:
                    facts[fact.path].append(fact)
                self._facts, self._loaded = dict(facts), True
                self._unclaimed = {path for path in facts if "/" not in path}

    async def _retry_while_unavailable(self, call: Callable[..., T], *arguments: Any) -> T:
        return await wait_out_async(RUNTIME.run_in_thread, call, *arguments, patience=self.patience)


class ReplayProgress:
    """Progress of a run's replay, for the log line that says at which turn the run resumed."""

    def __init__(self, report: Callable[[int], Awaitable[object]]) -> None:
        self.turn = 1
        self.answered = 0
        self._report = report
        self._reported = False

    def note_replayed(self, turn: int | None = None) -> None:
        """Note that a recorded answer was given; `turn` counts those of the run itself."""
        self.answered += 1
        if turn is not None:
            self.turn = turn

    async def note_live_work(self, turn: int | None = None) -> None:
        """Note work that was not recorded; the first such work after a replay is reported."""
        if turn is not None:
            self.turn = turn
        if self.answered and not self._reported:
            self._reported = True
            await self._report(self.turn)
        self._reported = True


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Place of the running code in its task. `durable` is False outside a runner's `run`."""

    recorder: Recorder
    path: str = ""
    policy: Policy = "fail"
    durable: bool = False
    replay: ReplayProgress | None = None
    run: Any = None
    """The durable run that the code belongs to, in the form that its runner keeps."""
    approval_seconds: float | None = None
    """Seconds for which a question to a person stays open; None is without limit."""
    background: bool = False
    """True if models answer in the background where they can."""
    strand: Strand | None = None
    """The strand that runs the code at this place; branches that it starts are strands of their own."""

    def claim_path(self, name: str, input_hash: str, what: str) -> str:
        """Return the path of the next run or step with this name at this place, see `Recorder.claim_path`.

        One strand does things in the same order in every attempt; branches, such as gathered ones, need not.
        """
        ordered = self.strand is not None and self.strand() is _current_strand()
        return self.recorder.claim_path(self.path, name, input_hash, what, ordered=ordered)

    @property
    def is_canceled(self) -> bool:
        """True if the strand at this place has been canceled, with all that it runs."""
        strand = self.strand() if self.strand is not None else None
        return isinstance(strand, asyncio.Task) and strand.cancelling() > 0

    def approval_deadline(self) -> datetime | None:
        """Return the moment at which a question asked now has its default answer; None if never."""
        seconds = self.approval_seconds
        if seconds is None:
            seconds = self.recorder.approvals.policy.timeout_seconds
        return None if seconds is None else utc_now() + timedelta(seconds=seconds)

    def approval_terms(self) -> Terms:
        """Return the terms of a question that only a person may answer with yes."""
        return self.recorder.approvals.terms()

    def child_scope(self, path: str, **changes: Any) -> Scope:
        """Return the scope of a run or call inside this one, which the running strand enters."""
        return dataclasses.replace(self, path=path, strand=weakref.ref(_current_strand()), **changes)


def _current_strand() -> object:
    """Return the asyncio task that runs this code, or its thread if there is none."""
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:
        return threading.current_thread()


def enter_task(lease: Lease, attempt: int, failures: int = 0) -> Recorder:
    """Make the running code an attempt of a task, with a recorder that is returned. `failures`: attempts that raised."""
    CURRENT_LEASE.set(lease)
    recorder = Recorder(lease, attempt, failures)
    PATIENCE.set(recorder.patience)
    SCOPE.set(Scope(recorder, strand=weakref.ref(_current_strand())))
    return recorder


async def confirm_lease() -> None:
    """Make sure that the running code's attempt, if it is one, still has its task; see `Recorder.confirm_lease`."""
    scope = current_scope()
    if scope is not None:
        await scope.recorder.confirm_lease()


def scope_of(agent_id: UUID) -> Scope | None:
    """Return the running code's scope if it belongs to this task; None in a script, a web process, or another task."""
    scope = current_scope()
    return scope if scope is not None and scope.recorder.lease.agent_id == agent_id else None

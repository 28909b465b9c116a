"""The journal of one attempt: what is recorded is answered from memory, what is new is appended.

A handler runs again from its top. Its runs and calls are told apart by **paths**: a run is its place's path, the
agent's name and a number; a call is its run's path and the call's id. The same code gives the same paths.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar
from uuid import UUID

from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, ReplayDivergedError, UnavailableError
from agentexec.journal.approvals import Question, Verdict, ask
from agentexec.journal.store import Fact, FactKind, Usage, append_fact, digest, fit_path, load_facts
from agentexec.journal.waiting import POLL_SECONDS, QUIET_SECONDS, ActiveCalls, waiting_for_approval
from agentexec.outage import backoff
from agentexec.runtime import RUNTIME
from agentexec.task import CURRENT_LEASE, Lease

log = logging.getLogger("agentexec.journal")

T = TypeVar("T")

Policy = Literal["idempotent", "ask", "fail", "transactional"]

Strand = weakref.ref[object]
"""Weak, for a task holds its context and so its scope: it would be a circle for each task that runs."""

POLICIES: tuple[Policy, ...] = ("idempotent", "ask", "fail", "transactional")


class Recorder:
    """What one attempt of a task knows of the earlier ones, and adds to it.

    Used by one handler, which may spread over threads and event loops.
    """

    def __init__(self, lease: Lease, attempt: int = 1, failures: int = 0) -> None:
        self.lease = lease
        self.attempt = attempt
        self.failures = failures
        """Earlier attempts that raised; the others died or were handed back."""
        self.is_step_based = False
        """The handler is made of recorded steps: to run it again costs little."""
        self.local_waits = 0
        """Waits for results of other tasks that are under way: they end in this process alone."""
        self.fault: AgentexecError | None = None
        """Why this attempt must stop. Kept, because an agent's SDK would tell the model of it and go on."""
        self.active_calls = ActiveCalls()
        self.runs: dict[tuple[str, str], Any] = {}
        """The latest run of an agent at a path, as its runner keeps it."""
        self._facts: dict[str, list[Fact]] = {}
        self._opened = False
        self._claimed: dict[str, set[int]] = defaultdict(set)
        self._untouched: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self._awaited: Counter[str] = Counter()
        self._wakings: list[datetime] = []
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Read the task's journal, once per attempt. Waits while the database is away."""
        if not self._opened:
            with self.active_calls.track(object()):
                await self._patiently(self._load)

    def facts(self, path: str) -> list[Fact]:
        """What is recorded at a path; `open` comes first."""
        self.check()
        return self._facts.get(path, [])

    def has_nested_facts(self, path: str) -> bool:
        """True if something is recorded of what happened inside a call."""
        return any(known.startswith(f"{path}/") for known in self._facts)

    def check(self) -> None:
        """Raise what stopped this attempt, if anything did."""
        if self.fault is not None:
            raise self.fault from None

    def stop(self, fault: AgentexecError) -> AgentexecError:
        """Let nothing further happen in this attempt; returns the error that says why."""
        self.fault = self.fault or fault
        return self.fault

    def claim_path(self, parent: str, name: str, input_hash: str, what: str, *, ordered: bool) -> str:
        """The path of the next run or step of a name under a parent.

        Where several are recorded, the one with the same input is taken: branches that run side by side may start in
        another order. Raises ReplayDivergedError if the next one was recorded with another input and the code that
        asks is `ordered`; else what is recorded may be for a branch that comes later, and this is a new one.
        """
        self.check()
        stem = f"{parent}/{name}#" if parent else f"{name}#"
        with self._lock:
            taken = self._claimed[stem]
            number, first = 1, 0
            while True:
                if number not in taken:
                    recorded = self._facts.get(fit_path(f"{stem}{number}"))
                    if not recorded:
                        first = first if first and ordered else number
                        break
                    first = first or number
                    if recorded[0].input_hash == input_hash:
                        first = number
                        break
                number += 1
            taken.add(first)
            path = fit_path(f"{stem}{first}")
            self._untouched.discard(path)
        self.require_same_input(path, 0, input_hash, what)
        return path

    @property
    def unclaimed_paths(self) -> list[str]:
        """What earlier attempts have recorded at the top of the handler and this one has not asked for."""
        with self._lock:
            return sorted(self._untouched)

    def next_ordinal(self, stem: str) -> int:
        """How often this attempt has come to a place, from 1: what tells like things apart that it does there."""
        with self._lock:
            self._numbers[stem] += 1
            return self._numbers[stem]

    @contextmanager
    def waiting_for(self, kind: str) -> Generator[None]:
        """Something of a kind is waited for that may take days."""
        with self._lock:
            self._awaited[kind] += 1
        try:
            yield
        finally:
            with self._lock:
                self._awaited[kind] -= 1

    @contextmanager
    def sleeping(self, until: datetime) -> Generator[None]:
        """A branch of the task sleeps until a moment."""
        with self._lock:
            self._wakings.append(until)
        try:
            yield
        finally:
            with self._lock:
                self._wakings.remove(until)

    @property
    def earliest_wake_up(self) -> datetime | None:
        """When the first of the branches that sleep wakes up."""
        with self._lock:
            return min(self._wakings, default=None)

    @property
    def awaited_kinds(self) -> frozenset[str]:
        """The kinds of what is waited for now."""
        with self._lock:
            return frozenset(kind for kind, number in self._awaited.items() if number)

    def require_same_input(self, path: str, seq: int, input_hash: str, what: str) -> None:
        """Raise ReplayDivergedError if a recorded fact was recorded with another input."""
        facts = self.facts(path)
        if seq < len(facts) and facts[seq].input_hash != input_hash:
            raise self.stop(
                ReplayDivergedError(
                    f"Task {self.lease.agent_id} went another way than in an earlier attempt: {what} ({path}) now has "
                    "another input than was recorded; make the handler's inputs depend on its context alone (no clock, "
                    "no random values, nothing that changes between attempts), or fetch what changes in runner.step().",
                    agent_id=self.lease.agent_id,
                    path=path,
                )
            )

    async def record(
        self, path: str, kind: FactKind, input_hash: str, value: str, usage: Usage | None = None
    ) -> None:
        """Append a fact. Waits while the database is away; raises LeaseLostError, which ends the attempt.

        A caller that is canceled meanwhile finds the fact recorded when it comes back.
        """
        self.check()
        fact = Fact(path, len(self.facts(path)), kind, input_hash, value)
        # A run that writes is under way, however slow the database is.
        with self.active_calls.track(object()):
            await asyncio.shield(asyncio.ensure_future(self._record(fact, usage)))

    async def _record(self, fact: Fact, usage: Usage | None) -> None:
        await self.write_with_retry(append_fact, RUNTIME.engine, self.lease, fact, usage, utc_now())
        self.add_fact(fact)

    async def wait_for_verdicts(
        self, questions: Sequence[Question], within: Iterable[object]
    ) -> list[Verdict]:
        """The answers to some questions, once all are there. `within`: the calls that wait for them.

        While something else goes on in the task it waits here; then WaitingForApproval takes the task off its worker.
        """
        with self.waiting_for("approval"), self.active_calls.suspend(within):
            async for may_leave in self.poll():
                now = utc_now()
                verdicts = await self.write_with_retry(ask, RUNTIME.engine, self.lease, questions, now)
                if all(verdict.decided for verdict in verdicts):
                    return verdicts
                if may_leave:
                    raise waiting_for_approval(questions, verdicts, now, self.awaited_kinds)
        raise AssertionError("the looks never end")

    async def poll(self) -> AsyncGenerator[bool]:
        """Moments to look whether what is waited for is there; True if nothing else goes on, so the task may leave.

        To be used within `active_calls.suspend`. Raises what stopped this attempt.
        """
        still = False
        while True:
            self.check()
            now_still = self.active_calls.idle and not self.local_waits
            yield still and now_still
            still = now_still
            await asyncio.sleep(QUIET_SECONDS if still else POLL_SECONDS)

    async def write_with_retry(self, call: Callable[..., T], *arguments: Any) -> T:
        """A blocking call, repeated until the database is there, whose errors stop the attempt."""
        try:
            return await self._patiently(call, *arguments)
        except AgentexecError as error:
            raise self.stop(error) from None

    def add_fact(self, fact: Fact) -> None:
        """Remember a fact that stands in the database by now."""
        with self._lock:
            self._facts.setdefault(fact.path, []).append(fact)

    def _load(self) -> None:
        with self._lock:
            if not self._opened:
                facts: dict[str, list[Fact]] = defaultdict(list)
                # The first epoch of a task is its first start: nothing can be recorded yet.
                for fact in load_facts(RUNTIME.engine, self.lease.agent_id) if self.lease.epoch > 1 else ():
                    facts[fact.path].append(fact)
                self._facts, self._opened = dict(facts), True
                self._untouched = {path for path in facts if "/" not in path}

    async def _patiently(self, call: Callable[..., T], *arguments: Any) -> T:
        """A blocking call beside the event loop, repeated until the database is there."""
        failures = 0
        while True:
            try:
                return await RUNTIME.run_in_thread(call, *arguments)
            except UnavailableError as error:
                failures += 1
                if failures == 1:
                    log.error("%s Task %s waits until it is back.", error, self.lease.agent_id)
            await asyncio.sleep(backoff(failures, maximum=2.0))


class ReplayProgress:
    """How far the replay of a run got: for the one line in the log that says where it went on."""

    def __init__(self, report: Callable[[int], Awaitable[object]]) -> None:
        self.turn = 1
        self.answered = 0
        self._report = report
        self._reported = False

    def note_replayed(self, turn: int | None = None) -> None:
        """A recorded answer was given; `turn`: that of the run itself."""
        self.answered += 1
        if turn is not None:
            self.turn = turn

    async def note_live_work(self, turn: int | None = None) -> None:
        """Something happens that was not recorded; reported if it is the first such thing after a replay."""
        if turn is not None:
            self.turn = turn
        if self.answered and not self._reported:
            self._reported = True
            await self._report(self.turn)
        self._reported = True


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Where in a task the running code stands. `durable` is false outside a runner's `run`."""

    recorder: Recorder
    path: str = ""
    policy: Policy = "fail"
    durable: bool = False
    replay: ReplayProgress | None = None
    run: Any = None
    """The durable run that the code belongs to, as its runner keeps it."""
    approval_seconds: float | None = None
    """How long a question to a person stays open; None for ever."""
    strand: Strand | None = None
    """What runs the code of this place from its top to its end; branches that it starts are strands of their own."""

    def claim_path(self, name: str, input_hash: str, what: str) -> str:
        """The path of the next run or step of a name in here, see `Recorder.claim_path`.

        What one strand does comes in the same order in every attempt; what branches do, gathered ones for example,
        need not.
        """
        ordered = self.strand is not None and self.strand() is _running()
        return self.recorder.claim_path(self.path, name, input_hash, what, ordered=ordered)

    def approval_deadline(self) -> datetime | None:
        """The moment at which a question that is asked now is closed."""
        return None if self.approval_seconds is None else utc_now() + timedelta(seconds=self.approval_seconds)

    def child_scope(self, path: str, **changes: Any) -> Scope:
        """The scope of a run or call inside this one, which the running strand enters."""
        return dataclasses.replace(self, path=path, strand=weakref.ref(_running()), **changes)


def _running() -> object:
    """The asyncio task that runs this code, or its thread where there is none."""
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:
        return threading.current_thread()


SCOPE: ContextVar[Scope | None] = ContextVar("agentexec_scope", default=None)
"""The scope of the running code; tasks and threads that it starts inherit it."""


def enter_task(lease: Lease, attempt: int, failures: int = 0) -> None:
    """Make the running code an attempt of a task, with a journal of its own. `failures`: attempts before that raised."""
    CURRENT_LEASE.set(lease)
    SCOPE.set(Scope(Recorder(lease, attempt, failures), strand=weakref.ref(_running())))


def current_scope() -> Scope | None:
    """Where in a task the running code stands; None in a script or a web process."""
    scope = SCOPE.get()
    return scope if scope is not None and CURRENT_LEASE.get() == scope.recorder.lease else None


def scope_of(agent_id: UUID) -> Scope | None:
    """The running code's scope if it is the task's; None in a script, a web process, or another task."""
    scope = current_scope()
    return scope if scope is not None and scope.recorder.lease.agent_id == agent_id else None


__all__ = [
    "POLICIES",
    "SCOPE",
    "Policy",
    "Recorder",
    "ReplayProgress",
    "Scope",
    "current_scope",
    "digest",
    "enter_task",
    "scope_of",
]

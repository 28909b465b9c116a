"""Leaving the worker to wait: without cutting off what is under way beside it, and not before it must be."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime

from agentexec.errors import WaitingForApproval
from agentexec.journal.approvals import Question, Verdict

POLL_SECONDS = 0.25
"""Between two looks at the answers, while something else goes on in the task."""

QUIET_SECONDS = 0.05
"""Nothing is under way for so long: between two steps of a run there is less."""

FAR_FUTURE_SECONDS = 10 * 365 * 86_400.0
"""Seconds after which a task starts by itself that waits for an answer without a time limit."""


class ActiveCalls:
    """The calls that are under way in an attempt: of models, tools and steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moving: Counter[object] = Counter()
        self._resting: Counter[object] = Counter()

    @contextmanager
    def track(self, call: object) -> Generator[None]:
        """A call is under way."""
        with _counted(self._lock, self._moving, (call,)):
            yield

    @contextmanager
    def suspend(self, calls: Iterable[object]) -> Generator[None]:
        """These calls do nothing but wait for what comes out of the block."""
        with _counted(self._lock, self._resting, tuple(calls)):
            yield

    @property
    def idle(self) -> bool:
        """True if nothing goes on."""
        with self._lock:
            return all(call in self._resting for call in self._moving)


@contextmanager
def _counted(lock: threading.Lock, counter: Counter[object], calls: tuple[object, ...]) -> Generator[None]:
    with lock:
        counter.update(calls)
    try:
        yield
    finally:
        with lock:
            for call in calls:
                counter[call] -= 1
                if not counter[call]:
                    del counter[call]


async def wait_until_idle(active_calls: ActiveCalls, within: Iterable[object]) -> None:
    """Wait until nothing is under way but the calls that the caller is inside of."""
    with active_calls.suspend(within):
        while not active_calls.idle:  # noqa: ASYNC110 - tasks may run on several event loops
            await asyncio.sleep(QUIET_SECONDS)


def waiting_for_approval(
    questions: Sequence[Question], verdicts: Sequence[Verdict], now: datetime, awaited: frozenset[str]
) -> WaitingForApproval:
    """The way back to the queue until the questions that are open are answered, or the first of them expires."""
    open_ = [
        (question, verdict)
        for question, verdict in zip(questions, verdicts, strict=True)
        if not verdict.decided
    ]
    seconds = [
        max(0.0, (verdict.expires_at - now).total_seconds())
        for _, verdict in open_
        if verdict.expires_at is not None
    ]
    calls = ", ".join(
        question.call
        if question.kind == "approval"
        else f"{question.call}, which was cut off, to be made again"
        for question, _ in open_
    )
    return WaitingForApproval(
        min(seconds, default=FAR_FUTURE_SECONDS), f"Waiting for approval: {calls}", awaited
    )

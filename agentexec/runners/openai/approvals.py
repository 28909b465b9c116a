"""Runs interrupted by a tool with `needs_approval`: they wait for a person, and resume with the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from agents import RunResult, RunResultStreaming, RunState, StreamEvent

from agentexec.journal.current_call import enclosing_calls
from agentexec.journal.facts import fit_path
from agentexec.journal.questions import EXPIRED, Question
from agentexec.journal.verdicts import wait_for_verdicts
from agentexec.runners.openai.durable import run_of, state_of
from agentexec.runners.openai.proxy import SdkProxy
from agentexec.runners.openai.sandbox_sessions import finish_sandboxes

APPROVAL_EXPIRED_MESSAGE = "Nobody approved this call in time, so it was not made."
"""Text for the model about a call whose approval has expired."""


async def resolve_interruptions(result: RunResult | RunResultStreaming) -> RunState[Any] | None:
    """Return the state from which an interrupted run resumes, with all its calls approved or rejected.

    Returns None for a run that is not interrupted, or that is outside its task. Raises WaitingForApproval, which takes
    the task off its worker until all answers are there.
    """
    run = run_of(result)
    if run is None or not result.interruptions:
        return None
    # Wait for all of them: a run that resumed with some of the answers would find more when it is replayed.
    items, approvals = list(result.interruptions), run.recorder.approvals
    questions = [
        Question(
            fit_path(f"{run.path}/{item.call_id}"),
            0,
            "approval",
            item.qualified_name or "tool",
            item.arguments or "",
            run.scope.approval_deadline(),
            approvals.terms_of_call(item.call_id or "", item.qualified_name or "tool"),
        )
        for item in items
    ]
    verdicts = await wait_for_verdicts(run.recorder, questions, enclosing_calls())
    approvals.note_changes(questions, verdicts)
    state = state_of(result)
    for item, verdict in zip(items, verdicts, strict=True):
        if verdict.approved:
            state.approve(item)
        else:
            message = APPROVAL_EXPIRED_MESSAGE if verdict.status == EXPIRED else verdict.message
            state.reject(item, rejection_message=message)
    return state


Resume = Callable[[RunState[Any]], Awaitable[RunResultStreaming]]


class ResumableStream(SdkProxy):
    """Result of a streamed run that may be interrupted; its events continue after each approval.

    It is a proxy of the SDK's result for the part that runs now.
    """

    def __init__(self, result: RunResultStreaming, resume: Resume) -> None:
        super().__init__(result)
        self._resume = resume

    async def stream_events(self) -> AsyncIterator[StreamEvent]:
        """Yield the run's events; see the SDK's `RunResultStreaming`."""
        while True:
            events: Any = self._inner.stream_events()
            async with aclosing(events):
                async for event in events:
                    yield event
            run, state = run_of(self._inner), await resolve_interruptions(self._inner)
            if state is None:
                if run is not None:
                    await finish_sandboxes(run)
                return
            self._inner = await self._resume(state)

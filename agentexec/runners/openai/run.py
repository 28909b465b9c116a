"""One durable run of the SDK: its path in the journal, and the progress of its replay."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from agents import Agent, RunConfig, RunState

from agentexec.activity.live import publisher as live
from agentexec.errors import Postponed
from agentexec.journal.canonical import digest
from agentexec.journal.current_call import enclosing_calls
from agentexec.journal.facts import Fact, FactKind, Usage, dump, path_segment
from agentexec.journal.forks import FORK_PATH
from agentexec.journal.recorder import Recorder, Scope
from agentexec.journal.waiting import wait_until_idle
from agentexec.runners.openai.changes import changes_of
from agentexec.runners.openai.events import LiveEvent, TextPlaces
from agentexec.runners.openai.guardrails import InputGuardrails
from agentexec.runners.openai.steering import Steering
from agentexec.runners.openai.tracing import ReplayedSpans
from agentexec.runtime import RUNTIME


class DurableRun:
    """A run within a task. At its path the journal holds its start, then its model's responses in order."""

    def __init__(self, scope: Scope, agent: Agent[Any], input: Any, run_config: Any) -> None:
        what = f"the run of agent {agent.name}"
        self.recorder: Recorder = scope.recorder
        self.input_hash = digest("state" if isinstance(input, RunState) else input)
        self.path = scope.claim_path(path_segment(agent.name) or "_", self.input_hash, what)
        self._label = f"{zlib.crc32(self.path.encode()):08x}"
        # Turns are counted for the outermost run only: readers do not follow those of the runs inside it.
        self.outermost = scope.run is None
        self.scope = scope.child_scope(self.path, run=self)
        self.run_config = run_config
        self.changes = changes_of(self.recorder, self.path)
        """Changes of this run, if it was forked; None for other runs."""
        self.models: dict[int, Any] = {}
        self.without_background: set[str] = set()
        """Classes of models of which the log says that they do not answer in the background."""
        self.sessions: dict[int, Any] = {}
        self.session_added = 0
        """Number of items that the run has added to its session so far."""
        self.steering: Steering | None = None
        """Messages of a conversation that may join the run; None if it has no session of one."""
        self.sandboxes: dict[int, Any] = {}
        self.failed_calls: set[str] = set()
        """Paths of the run's calls in which a run of another agent failed."""
        self.failed_tries = 0
        """Number of failed tries of the model call that is being made, which the SDK repeats."""
        self.input_guardrails = InputGuardrails()
        self.replaying = bool(self.recorder.facts(self.path))
        """True until the run calls a model itself."""
        outer = getattr(scope.run, "spans", None)
        self.spans: ReplayedSpans = outer if outer is not None else ReplayedSpans()
        self.active_agent = agent.name
        """The agent whose turn it is."""
        self._published_agent: str | None = None
        self._agent = agent.name
        self._next_turn = 1
        self.may_wrap_up = not self.recorder.budget.has_wrapped_up
        """True if the run may make one last call when a budget is used up."""
        self.last_tokens = 0
        """Tokens of the latest model call that this attempt made."""

    @property
    def is_fork(self) -> bool:
        """True in a task that was forked from another one."""
        return bool(self.recorder.facts(FORK_PATH))

    @property
    def next_turn(self) -> int:
        """The turn that the run is in, from 1."""
        return self._next_turn

    async def record_start(
        self, session_items: int | None = None, session_tail: list[str] | None = None
    ) -> dict[str, Any]:
        """Record the run's start, unless an earlier attempt did; return the recorded value.

        The session's end is recorded by its number of items, or by its last items if the run does not read all.
        """
        facts = self.recorder.facts(self.path)
        if not facts:
            start: dict[str, Any] = {"agent": self._agent, "session_items": session_items}
            if session_tail is not None:
                start["session_tail"] = session_tail
            value = dump(start, "A run")
            await self.recorder.record(self.path, FactKind.RUN, self.input_hash, value)
            facts = self.recorder.facts(self.path)
        return json.loads(facts[0].value)

    @property
    def start_fact(self) -> Fact | None:
        """The recorded start of the run; None if there is none yet."""
        facts = self.recorder.facts(self.path)
        return facts[0] if facts else None

    def recorded_session_items(self) -> int:
        """Return the number of session items that earlier attempts had added when they recorded a response."""
        facts = self.recorder.facts(self.path)
        return json.loads(facts[-1].value).get("session_added", 0) if facts else 0

    async def recorded_response(self, input_hash: str) -> str | None:
        """Return the recorded response to the run's next model call; None if there is none.

        Raises ReplayDivergedError if the recorded call had another input.
        """
        await self.record_start()
        replay, turn = self.scope.replay, self._next_turn
        facts = self.recorder.facts(self.path)
        if turn >= len(facts):
            if RUNTIME.replay is not None:
                await RUNTIME.replay.refuse_live(self.recorder, self.path, f"model call {turn}")
            self.spans.let_through()
            self.replaying = False
            if replay is not None:
                await replay.note_live_work(turn if self.outermost else None)
            return None
        self.recorder.require_same_input(
            self.path, turn, input_hash, f"model call {turn} of agent {self._agent}'s run"
        )
        self.recorder.passed.note_turn(self.path, turn)
        if replay is not None:
            replay.note_replayed(turn if self.outermost else None)
        if RUNTIME.replay is not None:
            RUNTIME.replay.note_answered(self.recorder, self.path, turn)
        self._next_turn += 1
        return facts[turn].value

    def publish(self, events: Iterable[LiveEvent]) -> None:
        """Send live events to the task's followers. Of a run inside another run they see only the usage."""
        for type, data in events:
            if type in ("tool_called", "usage"):
                data = {**data, "run": self._label}
            if self.outermost or type == "usage":
                live.publish(self.recorder.lease.agent_id, type, data)

    def text_places(self) -> TextPlaces:
        """Return the places of the text that the next model call writes."""
        return TextPlaces(self._label, self._next_turn)

    def publish_active_agent(self) -> None:
        """Send a live event with the active agent if it has changed."""
        if self._published_agent != self.active_agent:
            self._published_agent = self.active_agent
            self.publish([("agent", {"agent": self.active_agent})])

    @asynccontextmanager
    async def model_call(self) -> AsyncGenerator[None]:
        """Track a model call. If it gives the task back to the queue, wait first until nothing else is in progress."""
        active_calls = self.recorder.active_calls
        try:
            with active_calls.track(object()):
                yield
        except Postponed:
            await wait_until_idle(active_calls, enclosing_calls())
            raise

    @contextmanager
    def counting_failed_tries(self) -> Generator[None]:
        """Count a try that fails."""
        try:
            yield
        except Exception:
            self.failed_tries += 1
            raise

    async def counting_failed_tries_of(self, events: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        """Yield the events of a stream; count a try that fails."""
        with self.counting_failed_tries():
            async for event in events:
                yield event

    async def record_response(self, input_hash: str, value: str, usage: Usage) -> None:
        """Record the model's response; the run continues when it is in the database."""
        await self.recorder.record(self.path, FactKind.MODEL, input_hash, value, usage)
        self._next_turn += 1
        self.last_tokens = usage.input_tokens + usage.output_tokens
        self.failed_tries = 0


def inherit_run_config(given: Any) -> Any:
    """Return the settings that a run takes over from the run around it: its model provider, and tracing."""
    if isinstance(given, RunConfig):
        return RunConfig(
            model_provider=given.model_provider,
            tracing_disabled=given.tracing_disabled,
            tracing=given.tracing,
            trace_include_sensitive_data=given.trace_include_sensitive_data,
            group_id=given.group_id,
            trace_metadata=given.trace_metadata,
        )
    names = (
        "model_provider",
        "tracing_disabled",
        "tracing",
        "trace_include_sensitive_data",
        "group_id",
        "trace_metadata",
    )
    return {name: given[name] for name in names if name in given}

"""One durable run of the SDK's: its place in the journal, and how far its replay got."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, RunConfig, RunState

from agentexec.activity.live import publisher as live
from agentexec.errors import Postponed
from agentexec.journal.current_call import enclosing_calls
from agentexec.journal.recorder import Recorder, Scope
from agentexec.journal.store import Fact, FactKind, Usage, digest, dump
from agentexec.journal.waiting import wait_until_idle
from agentexec.runners.openai.events import LiveEvent


class DurableRun:
    """A run within a task: at its path the journal has that it began, then its model's responses in order."""

    def __init__(self, scope: Scope, agent: Agent[Any], input: Any, run_config: Any) -> None:
        what = f"the run of agent {agent.name}"
        self.recorder: Recorder = scope.recorder
        self.input_hash = digest("state" if isinstance(input, RunState) else input)
        self.path = scope.claim_path(place_name(agent.name), self.input_hash, what)
        # Turns are counted for the outermost run: those of the runs inside it are not what a reader follows.
        self.outermost = scope.run is None
        self.scope = scope.child_scope(self.path, run=self)
        self.run_config = run_config
        self.models: dict[int, Any] = {}
        self.sessions: dict[int, Any] = {}
        self.active_agent = agent.name
        """The agent whose turn it is."""
        self._told: str | None = None
        self._agent = agent.name
        self._next = 1

    async def record_start(self, session_items: int | None = None) -> dict[str, Any]:
        """Record that the run began, unless an earlier attempt did; returns what was recorded."""
        facts = self.recorder.facts(self.path)
        if not facts:
            value = dump({"agent": self._agent, "session_items": session_items}, "A run")
            await self.recorder.record(self.path, FactKind.RUN, self.input_hash, value)
            facts = self.recorder.facts(self.path)
        return json.loads(facts[0].value)

    @property
    def start_fact(self) -> Fact | None:
        """What is recorded of the run's beginning."""
        facts = self.recorder.facts(self.path)
        return facts[0] if facts else None

    async def recorded_response(self, input_hash: str) -> str | None:
        """The recorded answer to the run's next model call, if there is one.

        Raises ReplayDivergedError if the model was asked something else.
        """
        await self.record_start()
        turns, turn = self.scope.replay, self._next
        facts = self.recorder.facts(self.path)
        if turn >= len(facts):
            if turns is not None:
                await turns.note_live_work(turn if self.outermost else None)
            return None
        self.recorder.require_same_input(
            self.path, turn, input_hash, f"model call {turn} of agent {self._agent}'s run"
        )
        if turns is not None:
            turns.note_replayed(turn if self.outermost else None)
        self._next += 1
        return facts[turn].value

    def publish(self, events: Iterable[LiveEvent]) -> None:
        """Tell those who follow the task what happens now. Of runs inside this one they see the usage alone."""
        for type, data in events:
            if self.outermost or type == "usage":
                live.publish(self.recorder.lease.agent_id, type, data)

    def publish_active_agent(self) -> None:
        """Tell which agent goes on, if it is another one."""
        if self._told != self.active_agent:
            self._told = self.active_agent
            self.publish([("agent", {"agent": self.active_agent})])

    @asynccontextmanager
    async def model_call(self) -> AsyncGenerator[None]:
        """A model is asked. If that gives the task back to the queue, it first lets end what goes on beside it."""
        active_calls = self.recorder.active_calls
        try:
            with active_calls.track(object()):
                yield
        except Postponed:
            await wait_until_idle(active_calls, enclosing_calls())
            raise

    async def record_response(self, input_hash: str, value: str, usage: Usage) -> None:
        """Record the model's answer; the run goes on when it is safe."""
        await self.recorder.record(self.path, FactKind.MODEL, input_hash, value, usage)
        self._next += 1


def place_name(name: str) -> str:
    """An agent's or step's name as a part of a path."""
    return name.replace("/", "_").replace("#", "_")[:60] or "_"


def inherit_run_config(given: Any) -> Any:
    """Of an enclosing run's settings, what a run inside it takes over: where its models are, and tracing."""
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

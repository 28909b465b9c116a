"""The model of a harness: answers by a script, in every agent of every run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Self, Unpack

from agents import Agent, ModelResponse, RunConfig, RunResult, RunResultStreaming
from agents.items import TResponseStreamEvent
from agents.run import AgentRunner, RunOptions, get_default_agent_runner, set_default_agent_runner
from agents.testing import (
    ModelStep,
    ScriptedModel,
    UnexpectedModelCall,
    assistant_message,
    function_call,
)
from agents.usage import Usage
from pydantic import BaseModel

from agentexec.runners.openai.durable import patch_sdk
from agentexec.testing.script import ScriptEndedError

USAGE = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
"""What a scripted call has cost."""


class AgentScript(ScriptedModel):
    """The SDK's ScriptedModel with shorter words. Answers are given in the order of the calls, whichever agent asks.

    `calls` holds what was asked: `system_instructions`, `input`, `tools`, `model_settings` and more.
    """

    def __init__(self) -> None:
        super().__init__(default_usage=USAGE)
        self.pending_error: ScriptEndedError | None = None
        """Set when a call found no answer."""
        self._given = 0

    def say(self, answer: str | BaseModel | Mapping[str, Any]) -> Self:
        """The next call is answered with a text; a model or mapping becomes its JSON, for an agent with an output type."""
        if isinstance(answer, BaseModel):
            answer = answer.model_dump_json()
        elif not isinstance(answer, str):
            answer = json.dumps(dict(answer))
        return self._answer([assistant_message(answer, item_id=f"message-{self._given + 1}")])

    def call_tool(self, name: str, arguments: Mapping[str, Any] | None = None) -> Self:
        """The next call is answered with the call of a tool, or of an agent that is one, or a handoff."""
        return self.call_tools((name, arguments or {}))

    def call_tools(self, *calls: tuple[str, Mapping[str, Any]]) -> Self:
        """The same with several tools at once, each as (name, arguments)."""
        answer = self._given + 1
        return self._answer(
            [
                function_call(name, arguments, call_id=f"call-{answer}-{place}")
                for place, (name, arguments) in enumerate(calls, start=1)
            ]
        )

    def fail(self, error: Exception) -> Self:
        """The next call raises an error, as a provider's client would."""
        self._given += 1
        self.enqueue(error)
        return self

    def _answer(self, output: list[Any]) -> Self:
        self._given += 1
        self.enqueue(ModelStep(output=output, response_id=f"response-{self._given}"))
        return self

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """See the SDK's Model."""
        try:
            return await super().get_response(*args, **kwargs)
        except UnexpectedModelCall as error:
            raise self._too_short(error) from None

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """See the SDK's Model."""
        try:
            async for event in super().stream_response(*args, **kwargs):
                yield event
        except UnexpectedModelCall as error:
            raise self._too_short(error) from None

    def _too_short(self, error: UnexpectedModelCall) -> ScriptEndedError:
        number = error.call_index + 1
        self.pending_error = ScriptEndedError(
            f"Model call {number} found no answer: {self._given} were given. Give one more with "
            f"harness.model.say(...) or .call_tool(...); the call's input ends with {_last(error.call.input)}."
        )
        return self.pending_error


@contextmanager
def override_agent_models(model: AgentScript) -> Generator[None]:
    """Within the block every run of the SDK in this process uses a model, nested runs too."""
    patch_sdk()
    before = get_default_agent_runner()
    runner = ScriptedRunner(before, model)
    set_default_agent_runner(runner)
    try:
        yield
    finally:
        runner.model = None
        # Unless somebody has come after: then it stands behind that one and only passes on.
        if get_default_agent_runner() is runner:
            set_default_agent_runner(before)


class ScriptedRunner(AgentRunner):
    """Puts a model into every run. RunConfig's model wins over that of agents, by name or instance."""

    def __init__(self, inner: AgentRunner, model: AgentScript | None) -> None:
        super().__init__()
        self.inner = inner
        self.model = model

    async def run(
        self, starting_agent: Agent[Any], input: Any, **options: Unpack[RunOptions[Any]]
    ) -> RunResult:
        return await self.inner.run(starting_agent, input, **self._scripted(options))

    def run_sync(
        self, starting_agent: Agent[Any], input: Any, **options: Unpack[RunOptions[Any]]
    ) -> RunResult:
        return self.inner.run_sync(starting_agent, input, **self._scripted(options))

    def run_streamed(
        self, starting_agent: Agent[Any], input: Any, **options: Unpack[RunOptions[Any]]
    ) -> RunResultStreaming:
        return self.inner.run_streamed(starting_agent, input, **self._scripted(options))

    def _scripted(self, options: RunOptions[Any]) -> RunOptions[Any]:
        if self.model is None:
            return options
        given = options.get("run_config")
        if isinstance(given, RunConfig):
            options["run_config"] = dataclasses.replace(given, model=self.model, tracing_disabled=True)
        else:
            options["run_config"] = {**(given or {}), "model": self.model, "tracing_disabled": True}
        return options


def _last(asked: Any) -> str:
    """The end of a call's input, for an error."""
    text = asked if isinstance(asked, str) else json.dumps(asked[-1] if asked else None, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"

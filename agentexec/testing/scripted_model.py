"""Model of a harness: answers from a script, in every agent of every run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Self, Unpack

from agents import Agent, ModelProvider, ModelResponse, RunConfig, RunResult, RunResultStreaming
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
"""Usage of one scripted call."""


class AgentScript(ScriptedModel):
    """The SDK's ScriptedModel with shorter method names. It answers calls in their order, whichever agent makes them.

    `calls` has the requests, each with `system_instructions`, `input`, `tools`, `model_settings` and more.
    """

    def __init__(self) -> None:
        super().__init__(default_usage=USAGE)
        self.pending_error: ScriptEndedError | None = None
        """Set when a call found no answer."""
        self._number_of_answers = 0

    def say(self, answer: str | BaseModel | Mapping[str, Any]) -> Self:
        """Answer the next call with a text.

        Args:
            answer: The text. A model or mapping is converted to JSON, for an agent with an output type.

        Returns:
            The script, so that calls can be chained.
        """
        if isinstance(answer, BaseModel):
            answer = answer.model_dump_json()
        elif not isinstance(answer, str):
            answer = json.dumps(dict(answer))
        return self._answer([assistant_message(answer, item_id=f"message-{self._number_of_answers + 1}")])

    def call_tool(self, name: str, arguments: Mapping[str, Any] | None = None) -> Self:
        """Answer the next call with the call of a tool, of an agent used as a tool, or a handoff.

        Args:
            name: Name of the tool.
            arguments: Arguments of the call; default none.

        Returns:
            The script, so that calls can be chained.
        """
        return self.call_tools((name, arguments or {}))

    def call_tools(self, *calls: tuple[str, Mapping[str, Any]]) -> Self:
        """Answer the next call with calls of several tools at once.

        Args:
            calls: Each call as (name, arguments).

        Returns:
            The script, so that calls can be chained.
        """
        answer = self._number_of_answers + 1
        return self._answer(
            [
                function_call(name, arguments, call_id=f"call-{answer}-{place}")
                for place, (name, arguments) in enumerate(calls, start=1)
            ]
        )

    def fail(self, error: Exception) -> Self:
        """Raise an error in the next call, as a provider's client would.

        Args:
            error: The error.

        Returns:
            The script, so that calls can be chained.
        """
        self._number_of_answers += 1
        self.enqueue(error)
        return self

    def _answer(self, output: list[Any]) -> Self:
        self._number_of_answers += 1
        self.enqueue(ModelStep(output=output, response_id=f"response-{self._number_of_answers}"))
        return self

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """See the SDK's Model."""
        try:
            return await super().get_response(*args, **kwargs)
        except UnexpectedModelCall as error:
            raise self._no_answer(error) from None

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """See the SDK's Model."""
        try:
            async for event in super().stream_response(*args, **kwargs):
                yield event
        except UnexpectedModelCall as error:
            raise self._no_answer(error) from None

    def _no_answer(self, error: UnexpectedModelCall) -> ScriptEndedError:
        number = error.call_index + 1
        self.pending_error = ScriptEndedError(
            f"Model call {number} found no answer: {self._number_of_answers} were given. Give one more with "
            f"harness.model.say(...) or .call_tool(...). The input of the call ends with {_end_of_input(error.call.input)}."
        )
        return self.pending_error


@contextmanager
def override_agent_models(model: AgentScript) -> Generator[None]:
    """Make every run of the SDK in this process use `model` within the block, nested runs too."""
    patch_sdk()
    before = get_default_agent_runner()
    runner = ScriptedRunner(before, model)
    set_default_agent_runner(runner)
    try:
        yield
    finally:
        runner.model = None
        # If another runner was installed since, it calls this one, which then only passes calls on.
        if get_default_agent_runner() is runner:
            set_default_agent_runner(before)


class ScriptedRunner(AgentRunner):
    """Runner that puts a model into every run. The model of a RunConfig takes precedence over those of agents."""

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
            options["run_config"] = dataclasses.replace(
                given, model=self.model, model_provider=_ScriptProvider(self.model), tracing_disabled=True
            )
        else:
            scripted = {"model": self.model, "model_provider": _ScriptProvider(self.model)}
            options["run_config"] = {**(given or {}), **scripted, "tracing_disabled": True}
        return options


class _ScriptProvider(ModelProvider):
    """Provider whose models are all the script: a fork asks it for a model by name."""

    def __init__(self, model: AgentScript) -> None:
        self._model = model

    def get_model(self, model_name: str | None) -> AgentScript:
        return self._model


def _end_of_input(value: Any) -> str:
    """Return the end of a call's input, for an error message."""
    text = value if isinstance(value, str) else json.dumps(value[-1] if value else None, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"

"""Max-turns recovery: one more model call, without tools, that makes an answer from the agent's findings."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from agents import (
    Agent,
    MaxTurnsExceeded,
    ModelBehaviorError,
    ModelResponse,
    RunConfig,
    RunContextWrapper,
    RunErrorHandlerInput,
    RunErrorHandlerResult,
    RunHooks,
    Runner,
    TResponseInputItem,
)
from agents.run import RunOptions
from agents.run_error_handlers import RunErrorData

log = logging.getLogger("agentexec.runners")

WRAP_UP_PROMPT = (
    "Your turns are used up and your tools are gone. Answer now, as completely as you can, with what you have found "
    "out so far, and say what is missing."
)
"""Default text for an agent that has used up its turns."""

WRAP_UP_MESSAGE = "The turn limit is reached; summing up."


class WrapUp:
    """Handler of the SDK's "max_turns" error for one run: the last agent answers from the run's history.

    The answer becomes the run's final output and passes through the run's output guardrails, hooks and session. Its
    tokens count as the run's. If the agent answers with anything but a final output, the run fails with
    MaxTurnsExceeded as it would without recovery. Every other error is raised unchanged.
    """

    def __init__(
        self, prompt: str, options: RunOptions[Any], report: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._prompt = prompt
        self._options = options
        self._report = report

    async def __call__(self, data: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult | None:
        """Ask the agent to wrap up without tools."""
        await self._report(WRAP_UP_MESSAGE)
        agent = data.run_data.last_agent
        config = self._options.get("run_config")
        try:
            result = await Runner.run(
                _without_tools(agent, config),
                [*self._unseen(data.run_data), {"role": "user", "content": self._prompt}],
                max_turns=1,
                context=data.context.context,
                hooks=_ModelCalls(agent, self._options.get("hooks")),
                run_config=_for_wrap_up(config),
                error_handlers=self._other_handlers(),
                **self._conversation(data.run_data),
            )
        except (MaxTurnsExceeded, ModelBehaviorError) as error:
            log.warning("Agent %s could not sum up at its turn limit: %s", agent.name, error)
            return None
        data.context.usage.add(result.context_wrapper.usage)
        return RunErrorHandlerResult(final_output=result.final_output)

    def _other_handlers(self) -> Any:
        handlers = self._options.get("error_handlers") or {}
        return {kind: handler for kind, handler in handlers.items() if kind != "max_turns"}

    def _conversation(self, run: RunErrorData) -> dict[str, Any]:
        """Return the options that make the wrap-up the next turn of a conversation that OpenAI keeps, if it keeps one."""
        if conversation_id := self._options.get("conversation_id"):
            return {"conversation_id": conversation_id}
        if not self._on_server:
            return {}
        last = run.raw_responses[-1].response_id if run.raw_responses else None
        return {"previous_response_id": last or self._options.get("previous_response_id")}

    def _unseen(self, run: RunErrorData) -> list[TResponseInputItem]:
        """Return the history, or only the part after the last response if OpenAI keeps the conversation."""
        if not (self._on_server and run.raw_responses):
            return run.history
        unseen: list[TResponseInputItem] = []
        for item in reversed(run.output):
            if not str(item.get("type")).endswith("_output"):
                break
            unseen.insert(0, item)
        return unseen

    @property
    def _on_server(self) -> bool:
        names = ("conversation_id", "previous_response_id", "auto_previous_response_id")
        return any(self._options.get(name) for name in names)


class _ModelCalls(RunHooks[Any]):
    """Hooks that pass the wrap-up's model call, and nothing else, to the caller's hooks.

    For those it is a further call of the same agent. The SDK itself reports the agent's end to them.
    """

    def __init__(self, agent: Agent[Any], hooks: RunHooks[Any] | None) -> None:
        self._agent = agent
        self._hooks = [hook for hook in (hooks, agent.hooks) if hook is not None]

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        for hook in self._hooks:
            await hook.on_llm_start(context, self._agent, system_prompt, input_items)

    async def on_llm_end(
        self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse
    ) -> None:
        for hook in self._hooks:
            await hook.on_llm_end(context, self._agent, response)


def _without_tools(agent: Agent[Any], config: RunConfig | dict[str, Any] | None) -> Agent[Any]:
    """Return the agent without anything to call, and without the hooks and guardrails that the SDK runs on our answer."""
    override = (
        config.model_settings if isinstance(config, RunConfig) else (config or {}).get("model_settings")
    )
    # The API refuses a tool choice without tools.
    settings = dataclasses.replace(
        agent.model_settings.resolve(override), tool_choice=None, parallel_tool_calls=None
    )
    return agent.clone(
        tools=[],
        handoffs=[],
        mcp_servers=[],
        hooks=None,
        input_guardrails=[],
        output_guardrails=[],
        model_settings=settings,
    )


def _for_wrap_up(config: RunConfig | dict[str, Any] | None) -> RunConfig | dict[str, Any] | None:
    """Return the run's settings without its guardrails, and without the model settings, which the agent has."""
    if isinstance(config, RunConfig):
        return dataclasses.replace(config, input_guardrails=None, output_guardrails=None, model_settings=None)
    excluded = ("input_guardrails", "output_guardrails", "model_settings")
    return {name: value for name, value in (config or {}).items() if name not in excluded}

"""Max-turns recovery: further model calls, the last one without tools, that make an answer from the agent's findings."""

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
    Tool,
    TResponseInputItem,
)
from agents.run import RunOptions
from agents.run_error_handlers import RunErrorData

from agentexec.runners.openai.approvals import resolve_interruptions

log = logging.getLogger("agentexec.runners")

FINISH_PROMPT = (
    "Your turns are used up. Finish with what you have found out so far: use a tool only if you cannot answer without it, and "
    "answer as completely as you can, saying what is missing. You have {turns} more turns, the last one without tools."
)
"""Default text for an agent that has used up its turns and gets more than one for its answer."""

WRAP_UP_MESSAGE = "The turn limit is reached; summing up."


class WrapUp:
    """Handler of the SDK's "max_turns" error for one run: the last agent answers from the run's history.

    The answer becomes the run's final output and passes through the run's output guardrails, hooks and session. Its
    tokens count as the run's. If the agent answers with anything but a final output, the run fails with
    MaxTurnsExceeded as it would without recovery. Every other error is raised unchanged.

    Args:
        turns: Turns for the answer. The agent keeps its tools for all but the last one, and its handoffs for none.
    """

    def __init__(
        self,
        prompt: str,
        options: RunOptions[Any],
        report: Callable[[str], Awaitable[bool]] | None,
        turns: int = 1,
    ) -> None:
        self._prompt = prompt
        self._options = options
        self._report = report
        self._turns = turns

    async def __call__(self, data: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult | None:
        """Ask the agent to wrap up."""
        if self._report is not None:
            await self._report(WRAP_UP_MESSAGE)
        agent = data.run_data.last_agent
        config = self._options.get("run_config")
        handlers = self._other_handlers()
        options: dict[str, Any] = {
            "hooks": _Calls(agent, self._options.get("hooks")),
            "run_config": _for_wrap_up(config),
            "error_handlers": handlers,
            **self._conversation(data.run_data),
        }
        if self._turns > 1:
            # The last turn is a recovery of this run, as this run is one of the caller's.
            handlers["max_turns"] = WrapUp(self._prompt, {**options}, None)
        answering = _for_answer(agent, config, keeps_tools=self._turns > 1)
        input: Any = [*self._unseen(data.run_data), {"role": "user", "content": self._prompt}]
        options |= {"max_turns": max(1, self._turns - 1), "context": data.context.context}
        try:
            result = await Runner.run(answering, input, **options)
            while (state := await resolve_interruptions(result)) is not None:
                result = await Runner.run(answering, state, **options)
        except (MaxTurnsExceeded, ModelBehaviorError) as error:
            log.warning("Agent %s could not sum up at its turn limit: %s", agent.name, error)
            return None
        if result.interruptions:
            log.warning("Agent %s asks for an approval at its turn limit, outside a task.", agent.name)
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


class _Calls(RunHooks[Any]):
    """Hooks that pass the wrap-up's calls of models and tools, and nothing else, to the caller's hooks.

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

    async def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> None:
        for hook in self._hooks:
            await hook.on_tool_start(context, self._agent, tool)

    async def on_tool_end(
        self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: Any
    ) -> None:
        for hook in self._hooks:
            await hook.on_tool_end(context, self._agent, tool, result)


def _for_answer(
    agent: Agent[Any], config: RunConfig | dict[str, Any] | None, *, keeps_tools: bool
) -> Agent[Any]:
    """Return the agent without handoffs, and without the hooks and guardrails that the SDK runs on our answer."""
    override = (
        config.model_settings if isinstance(config, RunConfig) else (config or {}).get("model_settings")
    )
    settings = agent.model_settings.resolve(override)
    changes: dict[str, Any] = {}
    if not keeps_tools:
        # The API refuses a tool choice without tools.
        settings = dataclasses.replace(settings, tool_choice=None, parallel_tool_calls=None)
        changes = {"tools": [], "mcp_servers": []}
    return agent.clone(
        handoffs=[],
        hooks=None,
        input_guardrails=[],
        output_guardrails=[],
        model_settings=settings,
        **changes,
    )


def _for_wrap_up(config: RunConfig | dict[str, Any] | None) -> RunConfig | dict[str, Any] | None:
    """Return the run's settings without its guardrails, and without the model settings, which the agent has."""
    if isinstance(config, RunConfig):
        return dataclasses.replace(config, input_guardrails=None, output_guardrails=None, model_settings=None)
    excluded = ("input_guardrails", "output_guardrails", "model_settings")
    return {name: value for name, value in (config or {}).items() if name not in excluded}

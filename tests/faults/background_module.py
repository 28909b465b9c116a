"""Tasks whose agents are answered in the background, for tests that kill their workers."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from agents import Agent, OpenAIResponsesModel, RunConfig, function_tool
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

import agentexec as ax
from agentexec.runners.openai import background_waits
from tests.faults.worker_module import Job, write_ledger

background_waits.SHORTEST_PAUSE = 0.05
background_waits.INLINE_SECONDS = 0.1

pool = ax.Pool()


@pool.task("research")
async def research(agent_id: UUID, context: Job) -> str:
    """Run an agent with one tool; `value` says whether its answers are streamed."""
    write_ledger("start", context.key)

    @ax.tool_policy("idempotent")
    @function_tool
    def look_up(topic: str) -> str:
        """Look a topic up."""
        write_ledger("tool", context.key)
        return f"{topic}: 42"

    http = DefaultAsyncHttpxClient(verify=False)
    client = AsyncOpenAI(
        base_url=f"{os.environ['RESPONSES_URL']}/{context.key}", api_key="k", http_client=http
    )
    agent = Agent("Researcher", model=OpenAIResponsesModel("gpt", client), tools=[look_up])
    runner = ax.OpenAIRunner(agent_id, background=True)
    options: dict[str, Any] = {"run_config": RunConfig(tracing_disabled=True)}
    if not context.value:
        return (await runner.run(agent, "Go.", **options)).final_output
    result = await runner.run_streamed(agent, "Go.", **options)
    async for _ in result.stream_events():
        pass
    return result.final_output


@pool.task("quick")
async def quick(agent_id: UUID, context: Job) -> str:
    write_ledger("start", context.key)
    return "done"

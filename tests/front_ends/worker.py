"""Worker of the tests with other front ends: an agent with one tool."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agents import Agent, RunConfig, function_tool
from pydantic import BaseModel

import agentexec as ax
from tests.faults.worker_module import write_ledger

pool = ax.Pool()


class Chat(BaseModel):
    """Conversation so far."""

    messages: list[dict[str, str]]


@function_tool
def look_up(topic: str) -> str:
    """Look a topic up."""
    return f"All about {topic}."


@function_tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay an amount."""
    return f"Paid {amount}."


@pool.task("chat")
async def chat(agent_id: UUID, context: Chat) -> Any:
    write_ledger("start", "chat")
    agent = Agent(name="Assistant", model="gpt-4o", tools=[look_up, pay])
    runner = ax.OpenAIRunner(agent_id)
    result = await runner.run_streamed(
        agent, list(context.messages), run_config=RunConfig(tracing_disabled=True)
    )
    async for _ in result.stream_events():
        pass
    return result.final_output

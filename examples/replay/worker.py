"""An agent that decides about refunds, with a tool that must not run in a test."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agents import Agent, function_tool

import agentexec as ax

pool = ax.Pool()


@function_tool
def find_order(number: str) -> str:
    """Find an order by its number."""
    raise RuntimeError("the shop is not reachable from here")


@function_tool
def refund(number: str, cents: int) -> str:
    """Pay an order back."""
    raise RuntimeError("the bank is not reachable from here")


agent = Agent(
    "Clerk",
    instructions="Decide about the complaint. Refund at most what the order has cost.",
    tools=[find_order, refund],
)


@pool.task("complaint")
async def complaint(agent_id: UUID, context: dict[str, Any]) -> str:
    result = await ax.OpenAIRunner(agent_id).run(agent, f"Complaint: {context['text']}")
    return result.final_output

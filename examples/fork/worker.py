"""Fork, export and replay: a support agent whose finished runs are tried again with other instructions.

agentexec worker worker
agentexec enqueue support '{"question": "Where is my order 7?"}'
"""

from __future__ import annotations

import os
from uuid import UUID

from agents import Agent, function_tool
from pydantic import BaseModel

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool()


class Ticket(BaseModel):
    question: str


@function_tool
async def find_order(number: int) -> str:
    """Find an order by its number."""
    return f"Order {number} left the warehouse this morning."


@pool.task("support")
async def support(agent_id: UUID, context: Ticket) -> str:
    """Answer a customer."""
    agent = Agent(
        name="Support",
        instructions="Answer the customer's question. Find the order first.",
        tools=[find_order],
        model=MODEL,
    )
    result = await ax.OpenAIRunner(agent_id).run(agent, context.question)
    return result.final_output

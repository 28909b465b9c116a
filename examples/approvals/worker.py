"""Approvals: refunds that a person approves, with other arguments or with all like it, and a default for late answers.

agentexec worker worker
agentexec enqueue refund '{"letter": "Order 7 came broken.", "customer": "ann@example.com"}'
"""

from __future__ import annotations

import os
from datetime import timedelta
from uuid import UUID

from agents import Agent, function_tool
from pydantic import BaseModel

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

# The tools are plain; which of them ask is decided in one place.
pool = ax.Pool(
    approvals=ax.ApprovalPolicy({"send_*": "ask"}, timeout=timedelta(days=1), default="reject"),
)


class Letter(BaseModel):
    letter: str
    customer: str


@function_tool
async def find_price(order: int) -> float:
    """Find the price of an order."""
    return 40.0


@function_tool
@ax.tool_policy("idempotent")
async def send_refund(customer: str, amount: float) -> str:
    """Send money back to a customer."""
    return f"Sent {amount:.2f} to {customer}, under the key {ax.idempotency_key()}."


@pool.task("refund")
async def refund(agent_id: UUID, context: Letter) -> str:
    """Answer a letter; the task leaves its worker while a person decides."""
    agent = Agent(
        name="Clerk",
        instructions="Refund what the customer paid, if the letter gives a reason.",
        tools=[find_price, send_refund],
        model=MODEL,
    )
    result = await ax.OpenAIRunner(agent_id).run(agent, f"{context.customer} writes: {context.letter}")
    return result.final_output

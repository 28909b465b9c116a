"""Budgets: a task that asks for more, one that sums up at its limit, and tenants that share a limit for each day.

AGENTEXEC_BUDGETS='tenant=$50/day' agentexec worker worker
agentexec enqueue research '{"company": "Acme"}' --metadata tenant=acme
"""

from __future__ import annotations

import os
from uuid import UUID

from agents import Agent, ModelSettings, function_tool
from pydantic import BaseModel

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool()


class Company(BaseModel):
    company: str


@function_tool
@ax.tool_policy("idempotent")
async def search(query: str) -> str:
    """Search the web."""
    return f"Pages about {query}."


def researcher() -> Agent[None]:
    """Return an agent whose answers are bounded, so that a reservation is never below what its call costs."""
    return Agent(
        name="Researcher",
        instructions="Research the company that the user names. Search first.",
        tools=[search],
        model=MODEL,
        model_settings=ModelSettings(max_tokens=400),
    )


@pool.task("research", budget="2000 tokens", on_budget="ask")
async def research(agent_id: UUID, context: Company) -> str:
    """Wait for a person at the limit."""
    result = await ax.OpenAIRunner(agent_id).run(researcher(), context.company)
    return result.final_output


@pool.task("overview", budget="2000 tokens", on_budget="wrap_up")
async def overview(agent_id: UUID, context: Company) -> str:
    """Answer with what is known at the limit."""
    result = await ax.OpenAIRunner(agent_id).run(researcher(), context.company)
    return result.final_output

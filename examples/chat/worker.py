"""Agent that answers the messages of a conversation: `agentexec worker worker`."""

from __future__ import annotations

import os
from uuid import UUID

from agents import Agent

import agentexec as ax

pool = ax.Pool()


@pool.task("support")
async def support(agent_id: UUID, context: ax.Turn) -> str:
    agent = Agent(
        "Support",
        instructions="You answer questions about orders, in a few sentences.",
        model=os.environ.get("AGENT_MODEL", "gpt-4o-mini"),
    )
    result = await ax.OpenAIRunner(agent_id).run(agent, context.text, session=context.session)
    return str(result.final_output)

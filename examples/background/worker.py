"""An agent that thinks for long: its responses come in the background, so a killed worker costs nothing twice.

agentexec worker worker
agentexec enqueue investigate '{"question": "When do the tides turn?"}'
"""

from __future__ import annotations

import os
from uuid import UUID

from agents import Agent, function_tool
from pydantic import BaseModel

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-5.2")

pool = ax.Pool()


class Question(BaseModel):
    question: str


@ax.tool_policy("idempotent")
@function_tool
def look_up(topic: str) -> str:
    """Look a topic up in the almanac."""
    return f"{topic}: twice a day, an hour later each day"


@pool.task("investigate")
async def investigate(agent_id: UUID, context: Question) -> str:
    """Answer a question; while the model thinks, the task takes no slot of its worker."""
    agent = Agent("Investigator", model=MODEL, tools=[look_up], instructions="Think hard. Use the almanac.")
    runner = ax.OpenAIRunner(agent_id, background=True)
    return (await runner.run(agent, context.question)).final_output


if __name__ == "__main__":
    pool.run()

"""The agent of `bench agents` as a task of agentexec."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

import agentexec as ax
from bench.agent_case import INPUT, agent, run_config
from bench.tasks import pool as pool

CONFIG = run_config()


class Question(BaseModel):
    """Context of the task."""

    text: str = INPUT


@pool.task("analyst")
async def analyst(*, agent_id: UUID, context: Question) -> str:
    """Run the agent, and return its answer."""
    result = await ax.OpenAIRunner(agent_id).run(agent(), context.text, run_config=CONFIG)
    return result.final_output

"""The agent of `bench long` as a task: 100 turns, each with a tool call that returns 5 KB."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

from agents import Agent, OpenAIProvider, RunConfig, function_tool
from openai import AsyncOpenAI
from pydantic import BaseModel

import agentexec as ax
from bench.agent_case import URL
from bench.tasks import pool as pool

CALLED = "BENCH_TOOL_CALLS"
"""Environment variable with the file to which each call of the tool adds a byte."""

CHARACTERS = 5_000
LINE = "ordered on 2026-03-02, delivered on 2026-03-09, 120 pieces at 14.20; "


class Question(BaseModel):
    """Context of the task."""

    turns: int


@function_tool
async def look_up(table: str, row: int) -> str:
    """Look up the rows of a table around a number.

    Args:
        table: Name of the table.
        row: Number of the row.
    """
    _count()
    return f"{table}, row {row}: {LINE * (CHARACTERS // len(LINE) + 1)}"[:CHARACTERS]


def _count() -> None:
    with Path(os.environ[CALLED]).open("ab") as called:
        called.write(b".")


@pool.task("long")
async def long(*, agent_id: UUID, context: Question) -> str:
    """Run the agent, and return its answer."""
    client = AsyncOpenAI(base_url=os.environ[URL], api_key="none", timeout=120)
    config = RunConfig(model_provider=OpenAIProvider(openai_client=client), tracing_disabled=True)
    agent = Agent("Analyst", instructions="Look every number up.", tools=[look_up], model="bench")
    runner = ax.OpenAIRunner(agent_id)
    return (
        await runner.run(agent, "Which orders are late?", max_turns=context.turns, run_config=config)
    ).final_output

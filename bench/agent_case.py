"""The agent of `bench agents`: six turns, five tool calls. Plain SDK, agentexec and DBOS run this very module."""

from __future__ import annotations

import os
from typing import Any

from agents import Agent, OpenAIProvider, RunConfig, function_tool, set_default_openai_client
from openai import AsyncOpenAI

URL = "BENCH_MODEL_URL"
"""Environment variable with the base URL of the model server."""

INPUT = "Compare the delivery times of our three largest suppliers, and say which orders are late."
INSTRUCTIONS = (
    "You are an analyst. Look every number up before you use it, and answer in two short sentences."
)
AT_ONCE = 200


@function_tool
async def look_up(table: str, row: int) -> str:
    """Look up a row of a table.

    Args:
        table: Name of the table.
        row: Number of the row.
    """
    return f"{table}, row {row}: " + "ordered on 2026-03-02, delivered on 2026-03-09, 120 pieces; " * 3


def agent() -> Agent[Any]:
    """Return the agent; each run gets its own, as handlers usually make them."""
    return Agent("Analyst", instructions=INSTRUCTIONS, tools=[look_up], model="bench")


def run_config() -> RunConfig:
    """Return the settings of all runs of a process, which share one client as an application's do."""
    client = AsyncOpenAI(base_url=os.environ[URL], api_key="none", timeout=120)
    # DBOS's runner puts a provider of its own into the settings, which takes the default client.
    set_default_openai_client(client, use_for_tracing=False)
    return RunConfig(model_provider=OpenAIProvider(openai_client=client), tracing_disabled=True)

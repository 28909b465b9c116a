"""Tasks that run agents, for tests with real workers; OPENAI_BASE_URL names the model server."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from agents import Agent, RunConfig, SQLiteSession, function_tool, set_trace_processors
from agents.testing import ScriptedModel, assistant_message
from agents.tracing.processor_interface import TracingExporter
from agents.tracing.processors import BatchTraceProcessor

import agentexec as ax
from tests.faults.worker_module import Job, start_count, write_ledger

pool = ax.Pool()


@function_tool
def slow_tool(key: str, seconds: float) -> str:
    """Take some seconds, in a thread."""
    write_ledger("tool", key)
    time.sleep(seconds)
    write_ledger("tool_end", key)
    return "done"


@function_tool(needs_approval=True)
def send_email(to: str) -> str:
    """Send an email."""
    write_ledger("sent", to)
    return "sent"


@pool.task("mails")
async def mails(agent_id: UUID, context: Job) -> str:
    write_ledger("start", context.key)
    agent = Agent(name="Clerk", model="gpt-4o-mini", tools=[send_email])
    config = RunConfig(tracing_disabled=True)
    runner = ax.OpenAIRunner(agent_id, approval_timeout=context.seconds or None)
    return (await runner.run(agent, input="Write.", run_config=config)).final_output


async def ask(agent_id: UUID, job: Job) -> str:
    write_ledger("start", job.key)
    agent = Agent(name="Asker", model="gpt-4o-mini", tools=[slow_tool])
    config = RunConfig(tracing_disabled=True)
    result = await ax.OpenAIRunner(agent_id).run(agent, input=f"About {job.key}.", run_config=config)
    write_ledger("end", job.key)
    return result.final_output


@pool.task("ask")
async def ask_at_leisure(agent_id: UUID, context: Job) -> str:
    try:
        return await ask(agent_id, context)
    except Exception as error:
        # As careful handlers do. It must not keep the task from returning to the queue.
        write_ledger("caught", context.key)
        raise RuntimeError("the agent failed") from error


@pool.task("ask_in_time", timeout=1.0, retries=1)
async def ask_in_time(agent_id: UUID, context: Job) -> str:
    return await ask(agent_id, context)


@pool.task("ask_in_good_time", timeout=20, retries=1)
async def ask_in_good_time(agent_id: UUID, context: Job) -> str:
    return await ask(agent_id, context)


@pool.task("waits_its_turn")
async def waits_its_turn(agent_id: UUID, context: Job) -> str:
    """Go back to the queue once."""
    write_ledger("start", context.key)
    if start_count(context.key) == 1:
        raise ax.RetryLater(context.seconds, "it is not its turn yet")
    return "its turn"


@pool.task("work")
async def work(agent_id: UUID, context: Job) -> str:
    write_ledger("start", context.key)
    return context.key


@pool.task("chat")
async def chat(agent_id: UUID, context: Job) -> None:
    """Use the session `key` and stay until the gate opens."""
    write_ledger("start", context.key)
    session = SQLiteSession(context.key, Path(os.environ["LEDGER"]).with_name("sessions.db"))
    agent = Agent("Chatter", model=ScriptedModel([[assistant_message("Hello.")]]))
    config = RunConfig(tracing_disabled=True)
    await ax.OpenAIRunner(agent_id).run(agent, "Hi.", session=session, run_config=config)
    write_ledger("spoken", context.key)
    while not await asyncio.to_thread(Path(context.gate).exists):  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.05)


class LedgerExporter(TracingExporter):
    """Exporter of traces that writes each span's type into the ledger."""

    def export(self, items: list[Any]) -> None:
        for item in items:
            write_ledger("exported", item.span_data.type if hasattr(item, "span_data") else item.trace_id)


@pool.task("traced")
async def traced(agent_id: UUID, context: Job) -> str:
    set_trace_processors([BatchTraceProcessor(LedgerExporter(), schedule_delay=3600)])
    agent = Agent(name="A", model=ScriptedModel([[assistant_message("Hi.")]], emit_traces=True))
    return (await ax.OpenAIRunner(agent_id).run(agent, "Go.", run_config=RunConfig())).final_output

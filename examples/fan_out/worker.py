"""Dynamic fan-out: an agent finds leads, a task of its own researches each, and the last one starts the summary.

agentexec worker worker
agentexec enqueue discover '{"topic": "solar power"}'
"""

from __future__ import annotations

import asyncio
import os
from uuid import UUID

from agents import Agent, function_tool
from pydantic import BaseModel
from sqlalchemy.orm import Session

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool()


class Topic(BaseModel):
    topic: str


class Lead(BaseModel):
    company: str
    batch: UUID


class Batch(BaseModel):
    batch: UUID


def leads_of(batch: UUID) -> ax.Tracker:
    return ax.Tracker("leads", batch)


@pool.task("discover")
async def discover(agent_id: UUID, context: Topic) -> str:
    """Find companies; each call of the tool adds exactly one task, whatever crashes."""
    tracker = leads_of(agent_id)

    @ax.tool_policy("idempotent")
    @function_tool
    async def queue_research(company: str) -> str:
        """Queue the research of a company."""
        tracker.incr()
        await ax.enqueue("research_lead", Lead(company=company, batch=agent_id))
        return f"{company} is being researched."

    agent = Agent(
        name="Scout",
        instructions="Name companies in the field that the user gives. Call queue_research for each.",
        tools=[queue_research],
        model=MODEL,
    )
    result = await ax.OpenAIRunner(agent_id).run(agent, input=context.topic)
    # All leads are counted at this point. If they are all done already, the summary starts at once.
    tracker.on_complete("summarize", Batch(batch=agent_id))
    return result.final_output


@pool.task("research_lead")
async def research_lead(agent_id: UUID, context: Lead) -> str:
    try:
        agent = Agent(name="Researcher", instructions="Describe the company in a sentence.", model=MODEL)
        text = (await ax.OpenAIRunner(agent_id).run(agent, input=context.company)).final_output
    except Exception as error:  # the summary goes without a failed lead instead of waiting for it
        text = f"{context.company}: {type(error).__name__}"
    leads_of(context.batch).decr()
    return text


def find_leads(batch: UUID) -> list[ax.activity.ActivityChildSchema]:
    with Session(ax.get_engine()) as db:
        return ax.activity.detail(db, agent_id=batch).children


@pool.task("summarize")
async def summarize(agent_id: UUID, context: Batch) -> str:
    leads = await asyncio.to_thread(find_leads, context.batch)
    texts = await ax.gather(*[lead.agent_id for lead in leads])
    agent = Agent(name="Editor", instructions="Summarize the findings.", model=MODEL)
    return (await ax.OpenAIRunner(agent_id).run(agent, input="\n".join(texts))).final_output


if __name__ == "__main__":
    pool.run()

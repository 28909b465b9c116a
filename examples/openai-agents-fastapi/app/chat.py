"""Chat about companies: each message is a turn of an agent, which asks a person before it publishes."""

from uuid import UUID

from agents import Agent

import agentexec as ax

from .pool import MODEL, pool
from .research import look_up_financials, publish_report


@pool.task("answer_question")
async def answer_question(agent_id: UUID, context: ax.Turn) -> str:
    """Answer a message of a conversation, with what was said before it."""
    agent = Agent(
        name="Analyst",
        instructions="Answer questions about companies, in two or three sentences. Make a report public only when asked to.",
        tools=[look_up_financials, publish_report],
        model=MODEL,
    )
    # Streamed, as in research.py.
    result = await ax.OpenAIRunner(agent_id).run_streamed(
        agent, context.text, session=context.session, context=agent_id
    )
    async for _ in result.stream_events():
        pass
    return result.final_output

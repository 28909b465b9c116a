"""Research by one agent, whose last tool needs a person's approval."""

from typing import Any
from uuid import UUID

from agents import Agent, RunContextWrapper, function_tool

import agentexec as ax

from .contexts import ResearchContext
from .db import Report
from .pool import MODEL, pool


@function_tool
def look_up_financials(company: str) -> str:
    """Look up last year's figures of a company.

    Args:
        company: Name of the company.
    """
    revenue = 10 + sum(map(ord, company)) % 90
    return f"{company}: revenue {revenue} million, up {revenue % 17} % on the year before."


@function_tool
def find_competitors(company: str) -> list[str]:
    """Find the competitors of a company.

    Args:
        company: Name of the company.
    """
    return [f"{company[:3].title()}tronic", f"Neo{company.lower()}"]


# The row and the call's outcome are one transaction: after a crash there is one report, neither none nor two.
@ax.tool_policy("transactional")
@function_tool(needs_approval=True)
def publish_report(run: RunContextWrapper[Any], company: str, text: str) -> str:
    """Publish a report for everyone. A person has to approve it.

    Args:
        company: Name of the company.
        text: The report.
    """
    with ax.transaction() as db:
        db.add(Report(agent_id=run.context, company=company, text=text))
    return "The report is published."


@pool.task("research_company")
async def research_company(agent_id: UUID, context: ResearchContext) -> str:
    """Research a company, and publish a report if a person agrees; the result is a short text."""
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True)

    agent = Agent(
        name="Research Agent",
        instructions=(
            f"Research {context.company}: its figures and its competitors. Publish a report of two or three sentences, "
            f"then say what you have found and whether it was published. {runner.prompts.report_status}"
        ),
        tools=[
            look_up_financials,
            find_competitors,
            publish_report,
            runner.tools.report_status,  # the agent reports its own progress
        ],
        model=MODEL,
    )

    # Streamed, so that the page shows the text while the model writes it; reading the events is what runs the agent.
    result = await runner.run_streamed(agent, input=context.company, context=agent_id, max_turns=15)
    async for _ in result.stream_events():
        pass
    return result.final_output

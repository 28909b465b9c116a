"""Tasks of the quickstart. Run them with `agentexec worker worker`."""

import os
from uuid import UUID

from agents import Agent, function_tool
from context import ResearchContext

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool()


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


@pool.task("research")
async def research(agent_id: UUID, context: ResearchContext) -> str:
    """Research a company; the result is a short text."""
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True)
    agent = Agent(
        name="Research Agent",
        instructions=(
            "You research the company that the user names: its figures and its competitors. Answer with a summary "
            f"of two or three sentences. {runner.prompts.report_status}"
        ),
        tools=[look_up_financials, find_competitors, runner.tools.report_status],
        model=MODEL,
    )
    result = await runner.run(agent, input=context.company, max_turns=15)
    return result.final_output


if __name__ == "__main__":
    pool.run()

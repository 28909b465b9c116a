"""Pipeline: two agents in parallel, then one that weighs their findings."""

import asyncio

from agents import Agent
from pydantic import BaseModel

import agentexec as ax

from .contexts import ComparisonContext
from .pool import MODEL, pool

pipeline = ax.Pipeline(pool, "compare_company", retries=2)


class Brand(BaseModel):
    """Findings on the brand."""

    findings: str


class Market(BaseModel):
    """Findings on the market."""

    findings: str


class Verdict(BaseModel):
    """Result of the pipeline."""

    text: str


class ComparisonPipeline(pipeline.Base):
    """Steps that are recorded: after a crash, the pipeline continues in the one that was interrupted."""

    @pipeline.step(0, "parallel research")
    async def gather_data(self, context: ComparisonContext) -> tuple[Brand, Market]:
        """Ask two agents at the same time."""
        brand, market = await asyncio.gather(
            self.ask("Brand analyst", "Say in a sentence how the brand is seen.", context.company),
            self.ask("Market analyst", "Say in a sentence how big the market is.", context.company),
        )
        ax.activity.update(self.agent_id, "Both analysts have answered", percentage=50)
        return Brand(findings=brand), Market(findings=market)

    @pipeline.step(1, "verdict")
    async def weigh(self, brand: Brand, market: Market) -> Verdict:
        """Weigh what they have found."""
        found = f"Brand: {brand.findings}\nMarket: {market.findings}"
        return Verdict(
            text=await self.ask("Investor", "Say in two sentences whether to invest, and why.", found)
        )

    async def ask(self, name: str, instructions: str, about: str) -> str:
        """Return the answer of an agent without tools."""
        agent = Agent(name=name, instructions=instructions, model=MODEL)
        result = await ax.OpenAIRunner(self.agent_id).run(agent, input=about)
        return result.final_output

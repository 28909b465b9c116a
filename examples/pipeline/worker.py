"""Research pipeline: two agents in parallel, one that weighs their findings, and one that writes the report.

agentexec worker worker
agentexec enqueue research '{"company": "Acme"}' --wait
"""

from __future__ import annotations

import asyncio
import os

from agents import Agent
from pydantic import BaseModel

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool()
pipeline = ax.Pipeline(pool, "research", retries=2)


class Company(BaseModel):
    company: str


class Brand(BaseModel):
    findings: str


class Market(BaseModel):
    findings: str


class Verdict(BaseModel):
    buy: bool
    reason: str


class Report(BaseModel):
    text: str


class Research(pipeline.Base):
    """Pipeline that resumes after a crash in the interrupted step, at its last model or tool call."""

    @pipeline.step(0, "parallel research")
    async def gather_data(self, context: Company) -> tuple[Brand, Market]:
        brand, market = await asyncio.gather(
            self.ask("Brand analyst", "Say in a sentence how the brand is seen.", context.company),
            self.ask("Market analyst", "Say in a sentence how big the market is.", context.company),
        )
        return Brand(findings=brand), Market(findings=market)

    @pipeline.step(1, "analysis")
    async def analyze(self, brand: Brand, market: Market) -> Verdict:
        found = f"Brand: {brand.findings}\nMarket: {market.findings}"
        return await self.ask("Investor", "Decide whether to buy.", found, Verdict)

    @pipeline.step(2, "writing")
    async def write(self, verdict: Verdict) -> Report:
        return Report(text=await self.ask("Writer", "Write two sentences.", verdict.model_dump_json()))

    async def ask(self, name: str, instructions: str, about: str, output_type: type | None = None):
        agent = Agent(name=name, instructions=instructions, model=MODEL, output_type=output_type)
        result = await ax.OpenAIRunner(self.agent_id).run(agent, input=about)
        return result.final_output


if __name__ == "__main__":
    pool.run()

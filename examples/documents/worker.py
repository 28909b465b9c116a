"""Batch of contracts: each is a task of its own, and the batch shows how many are done.

agentexec worker worker
agentexec enqueue review '{"texts": ["Contract A …", "Contract B …"]}' --wait
"""

from __future__ import annotations

import os
from uuid import UUID

from agents import Agent
from pydantic import BaseModel

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool()


class Contract(BaseModel):
    number: int
    text: str


class Risk(BaseModel):
    score: int
    clause: str


class Batch(BaseModel):
    texts: list[str]


class Review(BaseModel):
    highest: int
    unread: int


@pool.task("read_contract", retries=2)
async def read_contract(agent_id: UUID, context: Contract) -> Risk:
    agent = Agent(
        name="Lawyer",
        instructions="Find the clause with the highest risk, and score the risk from 0 to 10.",
        output_type=Risk,
        model=MODEL,
    )
    return (await ax.OpenAIRunner(agent_id).run(agent, input=context.text)).final_output


@pool.task("review")
async def review(agent_id: UUID, context: Batch) -> Review:
    contracts = [Contract(number=number, text=text) for number, text in enumerate(context.texts)]
    tasks = await ax.enqueue_many("read_contract", contracts)
    risks: list[Risk] = []
    unread = 0
    async for done in ax.as_completed(tasks, timeout=None):  # holds no slot while it waits
        try:
            risks.append(done.result())
        except ax.TaskFailedError:
            unread += 1
        read = len(risks) + unread
        ax.activity.update(
            agent_id, f"Read {read} of {len(tasks)} contracts", percentage=100 * read // len(tasks)
        )
    return Review(highest=max((risk.score for risk in risks), default=0), unread=unread)


if __name__ == "__main__":
    pool.run()

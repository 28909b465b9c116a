"""Tasks for an assistant to look after: some of them fail."""

from uuid import UUID

from pydantic import BaseModel

import agentexec as ax

pool = ax.Pool()


class Invoice(BaseModel):
    number: int
    amount: float


@pool.task("book_invoice")
async def book_invoice(agent_id: UUID, context: Invoice) -> str:
    if context.amount <= 0:
        raise ValueError(f"invoice {context.number} has the amount {context.amount}")
    return f"booked {context.amount:.2f}"

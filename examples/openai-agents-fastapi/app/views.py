"""Endpoints of the application's own: start tasks and chats, read their status and results, list the reports."""

from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

import agentexec as ax

from .contexts import ComparisonContext, ResearchContext
from .db import Report, get_db

router = APIRouter()

Db = Annotated[Session, Depends(get_db)]
Company = Annotated[str, Query(min_length=1, max_length=100)]


class Queued(BaseModel):
    """Answer to a request that has queued a task."""

    agent_id: UUID
    status: str = "queued"


class Chat(BaseModel):
    """Conversation that has begun."""

    id: str


class ReportItem(BaseModel):
    """Published report."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    agent_id: UUID
    company: str
    text: str
    published_at: datetime


@router.post("/research", status_code=202)
async def start_research(company: Company) -> Queued:
    """Queue the research of a company."""
    task = await ax.enqueue("research_company", ResearchContext(company=company))
    return Queued(agent_id=task.agent_id)


@router.post("/comparisons", status_code=202)
async def start_comparison(company: Company) -> Queued:
    """Queue the pipeline."""
    task = await ax.enqueue("compare_company", ComparisonContext(company=company))
    return Queued(agent_id=task.agent_id)


@router.post("/chats", status_code=201)
async def begin_chat() -> Chat:
    """Begin a conversation; its messages, history and live events are in agentexec's API."""
    chat = ax.conversation(f"chat:{uuid4()}", task="answer_question")
    await chat.begin()
    return Chat(id=chat.conversation_id)


@router.get("/research/{agent_id}")
def get_status(agent_id: UUID, db: Db) -> ax.activity.ActivityDetailSchema:
    """Return status, progress and log of a task."""
    return ax.activity.detail(db, agent_id=agent_id)


@router.get("/research/{agent_id}/result")
async def get_result(agent_id: UUID, timeout: Annotated[float, Query(ge=0, le=60)] = 25) -> dict[str, object]:
    """Return the result of a task; waits for it, at most `timeout` seconds."""
    try:
        return {"result": await ax.get_result(agent_id, timeout=timeout)}
    except TimeoutError:
        raise HTTPException(504, "The task has not ended yet.") from None


@router.get("/reports")
def list_reports(db: Db, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[ReportItem]:
    """Return the latest reports that were approved and published, newest first."""
    reports = db.scalars(select(Report).order_by(Report.id.desc()).limit(limit))
    return [ReportItem.model_validate(report) for report in reports]

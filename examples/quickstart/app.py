"""Web app: accepts research tasks, shows their progress, and returns their results.

Run it with `python app.py`. PORT sets a port other than 8000.
"""

import os
from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

import uvicorn
from context import ResearchContext
from fastapi import Depends, FastAPI, HTTPException, Query
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.schemas import ActivityDetailSchema, ActivityListSchema

app = FastAPI(title="agentexec quickstart")


def get_db() -> Iterator[Session]:
    with Session(ax.get_engine()) as db:
        yield db


Db = Annotated[Session, Depends(get_db)]


@app.post("/research", status_code=202)
async def start_research(company: str) -> dict[str, str]:
    task = await ax.enqueue("research", ResearchContext(company=company))
    return {"agent_id": str(task.agent_id), "status": "queued"}


@app.get("/research")
def list_research(
    db: Db, page: Annotated[int, Query(ge=1)] = 1, page_size: Annotated[int, Query(ge=1, le=100)] = 20
) -> ActivityListSchema:
    return ax.activity.list(db, page=page, page_size=page_size)


@app.get("/research/{agent_id}")
def get_status(agent_id: UUID, db: Db) -> ActivityDetailSchema:
    try:
        return ax.activity.detail(db, agent_id=agent_id)
    except ax.ActivityNotFoundError as error:
        raise HTTPException(404, str(error)) from None


@app.get("/research/{agent_id}/result")
async def get_result(agent_id: UUID, timeout: Annotated[float, Query(ge=0, le=300)] = 30) -> dict[str, str]:
    """Return the result; waits for it, at most `timeout` seconds."""
    try:
        return {"result": await ax.get_result(agent_id, timeout=timeout, type=str)}
    except (ax.ActivityNotFoundError, ax.ResultExpiredError) as error:
        raise HTTPException(404, str(error)) from None
    except (ax.TaskFailedError, ax.TaskCanceledError) as error:
        # Only the first line: a traceback follows, which clients of an API should not see.
        raise HTTPException(409, str(error).partition("\n")[0]) from None
    except TimeoutError as error:
        raise HTTPException(504, str(error)) from None


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))

"""Bad parameters of a request are answered with 404 or 422 and a sentence, never with 500."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.contrib.fastapi import add_error_handlers, router
from agentexec.errors import SchemaError, TaskFailedError, UnavailableError
from agentexec.runtime import RUNTIME

ANY = "0190a6e2-7d4f-7c3a-9d55-0242ac120002"
HUGE = str(2**63)

LISTS = [
    {"page": "0"},
    {"page": "-1"},
    {"page": HUGE},
    {"page": "9" * 4000},
    {"page_size": "0"},
    {"page_size": "1001"},
    {"page_size": HUGE},
    {"after": "garbage"},
    {"after": "eA=="},
    {"after": "é\x00"},
    {"after": "x" * 10_000},
    {"page": "2", "after": "garbage"},
    {"status": "done"},
    {"status": ""},
    {"text": "%" * 16_000},
    {"text": "_" * 501},
    {"task_name": "x" * 201},
    {"since": "0001-01-01T00:00:00Z"},
    {"since": "2026-01-01T00:00:00"},
]
"""Parameters of a list that a browser may send."""

IDS = ["garbage", "1", "%00", "é", "0" * 4000, HUGE]
"""Malformed ids of tasks."""

POSITIONS = ["garbage", "1.x", "-1.0", "1", "9" * 30 + ".0", "1.0.0", "nan"]
"""Ids of events that no stream has sent."""


def wanted(tenant: str | None = None) -> Any:
    """Return what a careless dependency makes of a missing tenant."""
    return tenant


def get_db() -> Iterator[Session]:
    with Session(RUNTIME.engine) as db:
        yield db


Db = Annotated[Session, Depends(get_db)]


def make_app() -> FastAPI:
    app = FastAPI()
    app.include_router(router())
    app.include_router(router(path="/scoped/{agent_id}", metadata_filter=wanted))
    add_error_handlers(app)

    @app.get("/tasks")
    def tasks(
        db: Db,
        page: int = 1,
        page_size: int = 50,
        after: str | None = None,
        status: str | None = None,
        text: str | None = None,
        task_name: str | None = None,
        since: datetime | None = None,
    ) -> ax.activity.ActivityListSchema:
        return ax.activity.list(
            db,
            page,
            page_size,
            after=after,
            status=status,
            text=text,
            task_name=task_name,
            created_after=since,
        )

    @app.get("/tasks/{agent_id}")
    def task(agent_id: str, db: Db) -> ax.activity.ActivityDetailSchema:
        return ax.activity.detail(db, agent_id)

    @app.get("/tasks/{agent_id}/result")
    async def result(agent_id: str, timeout: float = 0) -> Any:
        return await ax.get_result(agent_id, timeout=timeout)

    @app.post("/tasks/{agent_id}/{call_id}")
    async def approve(agent_id: str, call_id: str) -> bool:
        return await ax.approve(agent_id, call_id)

    @app.delete("/tasks/{agent_id}")
    async def cancel(agent_id: str) -> bool:
        return await ax.cancel(agent_id)

    @app.post("/tasks")
    async def enqueue(size: int = 0, delay: float = 0, priority: str = "low") -> str:
        return str((await ax.enqueue("work", {"text": "x" * size}, delay=delay, priority=priority)).agent_id)  # type: ignore[arg-type]

    @app.get("/raise/{name}")
    def fail(name: str) -> None:
        if name == "unavailable":
            raise UnavailableError("The database cannot be reached.")
        if name == "failed":
            raise TaskFailedError(task_name="work", agent_id=uuid4(), error="ValueError: x", attempts=1)
        raise SchemaError("The database lacks agentexec's tables.")

    return app


@pytest.fixture
def web(tables_url: str) -> Iterator[TestClient]:
    ax.configure(database_url=tables_url)
    with TestClient(make_app(), raise_server_exceptions=False) as client:
        yield client


def is_sentence(answer: httpx.Response) -> bool:
    detail = answer.json()["detail"]
    text = detail if isinstance(detail, str) else detail[0]["msg"]
    return bool(text) and len(text.splitlines()) == 1 and "Traceback" not in text


def test_no_parameter_of_a_request_is_answered_with_500(web: TestClient) -> None:
    task = web.post("/tasks").json()
    requests: list[tuple[str, str, int, dict[str, Any]]] = [
        *(("GET", "/tasks", 422, {"params": parameters}) for parameters in LISTS),
        *(("GET", f"/tasks/{agent_id}", 422, {}) for agent_id in IDS),
        *(("GET", f"/activity/{agent_id}/events", 422, {}) for agent_id in IDS),
        *(("DELETE", f"/tasks/{agent_id}", 422, {}) for agent_id in IDS),
        *(("GET", f"/tasks/{agent_id}/result", 422, {}) for agent_id in IDS),
        *(("GET", f"/activity/{task}/events", 422, {"headers": {"Last-Event-ID": at}}) for at in POSITIONS),
        *(("GET", f"/activity/{task}/events", 422, {"params": {"after": at}}) for at in POSITIONS),
        ("GET", f"/activity/{task}/events", 422, {"headers": {"Last-Event-ID": b"\xff\xfe"}}),
        ("GET", f"/activity/{task}/events", 422, {"params": {"deltas": "perhaps"}}),
        ("GET", f"/scoped/{task}", 422, {"params": {"tenant": ""}}),
        ("GET", f"/scoped/{task}", 422, {"params": {"tenant": "a"}}),
        ("GET", f"/tasks/{ANY}", 404, {}),
        ("GET", f"/tasks/{ANY}/result", 404, {}),
        ("GET", f"/activity/{ANY}/events", 404, {}),
        ("DELETE", f"/tasks/{ANY}", 404, {}),
        ("POST", f"/tasks/{ANY}/call", 404, {}),
        ("POST", f"/tasks/{task}/call", 404, {}),
        ("GET", f"/tasks/{task}/result", 422, {"params": {"timeout": "1e300"}}),
        ("POST", "/tasks", 413, {"params": {"size": "2000000"}}),
        ("POST", "/tasks", 422, {"params": {"delay": "1e300"}}),
        ("POST", "/tasks", 422, {"params": {"priority": "urgent"}}),
        ("GET", "/raise/unavailable", 503, {}),
        ("GET", "/raise/schema", 503, {}),
        ("GET", "/raise/failed", 409, {}),
    ]
    wrong = []
    for method, path, expected, options in requests:
        answer = web.request(method, path, **options)
        if answer.status_code != expected or not is_sentence(answer):
            wrong.append(
                f"{method} {path[:60]} {str(options)[:60]}: {answer.status_code} {answer.text[:200]}"
            )
    assert not wrong, "\n".join(wrong)

"""Refusals of the HTTP API: what cannot be answered, and what is asked for by a name that no endpoint has."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
import uvicorn
from fastapi import Depends, FastAPI, Query
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, insert, update

import agentexec as ax
from agentexec.activity.models import Activity, ActivityResult
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import (
    BackendInvalidError,
    LeaseLostError,
    SchemaError,
    SettingsError,
    WaitDeadlockError,
)
from agentexec.runtime import RUNTIME
from agentexec.web.dashboard_server import serve
from agentexec.web.errors import FAULT
from tests.integration.web.test_tenants import ENDPOINTS, body_of, make_tasks, url_of

AGENT_ID = UUID(int=7)


def complete(agent_id: UUID, result: Any) -> None:
    row = {"agent_id": agent_id, "value": json.dumps(result), "expires_at": utc_now() + timedelta(hours=1)}
    with RUNTIME.engine.begin() as connection:
        connection.execute(insert(ActivityResult).values(**row))
    ax.activity.complete(agent_id)


def spend(agent_id: UUID) -> None:
    used = {"requests": 1, "input_tokens": 3, "cached_tokens": 0, "output_tokens": 2}
    with RUNTIME.engine.begin() as connection:
        connection.execute(
            update(Activity)
            .where(Activity.agent_id == agent_id)
            .values(requests=1, usage={"no-such-model": used})
        )


def test_a_database_without_tables_is_503_with_what_to_do(
    web: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    empty = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    monkeypatch.setattr(RUNTIME, "_engine", empty)
    for name, endpoint in ENDPOINTS.items():
        if name == "GET /me":
            continue
        answer = web.request(endpoint.method, url_of(endpoint, AGENT_ID), **body_of(endpoint))
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, "5"), (name, answer.text)
        assert "run `agentexec migrate`" in answer.json()["detail"], name
    app = FastAPI()
    app.include_router(ax.web.router())
    with TestClient(app) as bare:
        assert bare.get(f"/activity/{AGENT_ID}/events").status_code == 503
    assert not [record for record in caplog.records if record.exc_info]
    empty.dispose()


def test_the_dashboard_says_at_its_start_that_it_shows_nothing(
    deployment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda _server, sockets: [found.close() for found in sockets])
    said: list[str] = []
    serve("127.0.0.1", 0, token=False, allow_acts=False, say=said.append)
    assert len(said) == 1
    empty = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    monkeypatch.setattr(RUNTIME, "_engine", empty)
    serve("127.0.0.1", 0, token=False, allow_acts=False, say=said.append)
    assert said[2].startswith("It shows nothing yet: The database ")
    assert "run `agentexec migrate`" in said[2]
    empty.dispose()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SchemaError("It lacks tables."), 503),
        (SettingsError("A setting is wrong."), 503),
        (BackendInvalidError("The backend is incomplete."), 503),
        (WaitDeadlockError("They wait for each other."), 409),
    ],
)
def test_every_error_has_a_status_and_its_sentence(error: ax.AgentexecError, code: int) -> None:
    app = FastAPI()
    ax.web.add_error_handlers(app)

    @app.get("/")
    def fail() -> None:
        raise error

    with TestClient(app) as web:
        answer = web.get("/")
    assert (answer.status_code, answer.json()) == (code, {"detail": str(error)})


def test_a_fault_of_the_server_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    ax.web.add_error_handlers(app)

    @app.get("/")
    def fail() -> None:
        raise LeaseLostError(AGENT_ID)

    with TestClient(app) as web, caplog.at_level(logging.ERROR, "agentexec.web"):
        answer = web.get("/")
    assert (answer.status_code, answer.json()) == (500, {"detail": FAULT})
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_unknown_parameters_are_refused_by_every_endpoint(web: TestClient) -> None:
    tasks = make_tasks({"tenant": "a"})
    for name, endpoint in ENDPOINTS.items():
        url = url_of(endpoint, tasks["failed"])
        answer = web.request(endpoint.method, f"{url}?metadta=tenant=b", **body_of(endpoint))
        assert answer.status_code == 422, (name, answer.text)
        assert answer.json()["detail"].startswith("'metadta': there is no such parameter"), name
    detail = web.get("failed?text=x").json()["detail"]
    assert detail == "'text': there is no such parameter; there are limit, metadata, queue, since, task_name."
    assert web.get("me?x=1").json()["detail"] == "'x': there is no such parameter; there is none here."
    assert web.get("activity?status=error&status=queued&metadata=tenant=a&page_size=5").json()["total"] == 2
    events = f"activity/{tasks['failed']}/events"
    assert web.get(f"{events}?deltas=false&lastEventId=").status_code == 200


def test_unknown_fields_of_a_body_are_refused_by_every_endpoint(web: TestClient) -> None:
    tasks = make_tasks({"tenant": "a"})
    for name, endpoint in ENDPOINTS.items():
        if endpoint.method == "POST":
            body = body_of(endpoint)["json"] | {"reasn": "x"}
            answer = web.post(url_of(endpoint, tasks["running"]), json=body)
            assert answer.status_code == 422, (name, answer.text)
            assert "reasn" in answer.json()["detail"] and "there is no such field here" in answer.text, name
    cancel = f"activity/{tasks['running']}/cancel"
    for body in (b"[1]", b"nonsense", b"x" * 5_000, b"[" * 900):
        assert web.post(cancel, content=body).status_code == 422
    assert all(found["paused_at"] is None for found in web.get("schedules").json())
    for body in (b"", b"{}", b" {} ", b"null"):
        assert web.post(cancel, content=body).status_code == 200


def test_a_caller_has_parameters_of_its_own(deployment: Any) -> None:
    def by_key(key: Annotated[str, Query()]) -> ax.web.Caller:
        return ax.web.Caller(key)

    def by_label(by: ax.web.Caller = Depends(by_key)) -> ax.web.Caller:  # noqa: B008 - the way to declare a dependency
        return by

    app = FastAPI()
    app.include_router(ax.web.router(caller=by_label))
    with TestClient(app) as web:
        assert web.get("/me?key=alice").json()["name"] == "alice"
        assert web.get("/activity?key=alice&limit=3").status_code == 422


def test_sentences_do_not_tell_of_python(web: TestClient) -> None:
    said = {
        "activity?status=done": "status.0: Input should be 'queued', 'running', 'complete', 'error' or 'canceled'.",
        "activity?" + "&".join(["status=error"] * 9): "status: at most 5 are allowed.",
        "activity/x": "agent_id: this is not an id.",
        "failed?limit=x": "limit: Input should be a valid integer, unable to parse string as an integer.",
    }
    for url, sentence in said.items():
        assert web.get(url).json() == {"detail": sentence}
    bodies: dict[bytes, str] = {
        b'{"a": ': "body: this is not JSON.",
        b"[]": "body: this is not a JSON object.",
        b"": "body: this is required.",
        b'{"agent_ids": ["x"]}': "agent_ids.0: this is not an id.",
        b'{"status": "done"}': "status: Input should be 'queued' or 'running'.",
    }
    for body, sentence in bodies.items():
        assert web.post("activity/cancel", content=body).json() == {"detail": sentence}


def test_the_reason_of_a_pause_is_bounded(web: TestClient) -> None:
    assert web.post("queues/a/pause", json={"reason": "x" * 501}).status_code == 422
    assert web.post("queues/a/pause", json={"reason": "x" * 500}).json() == {"changed": True}


def test_nothing_spent_costs_nothing_and_an_unknown_price_is_null(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CONF, "list_prices", False)
    assert web.get("spent").json()["cost"] == 0
    agent_id = ax.enqueue_sync("work", {"key": "a"}).agent_id
    ax.activity.complete(agent_id)
    assert web.get("spent").json()["cost"] == 0
    spend(agent_id)
    answer = web.get("spent").json()
    assert (answer["usage"]["requests"], answer["cost"]) == (1, None)


def test_a_token_shows_what_the_guide_says(web: TestClient) -> None:
    tasks = make_tasks({"tenant": "a"})
    done = ax.enqueue_sync("work", {"key": "secret context"}, metadata={"tenant": "a"}).agent_id
    complete(done, {"answer": "the result"})
    by_task, by_tenant = (
        {"Authorization": f"Bearer {ax.web.read_token(**of)}"}  # type: ignore[arg-type]
        for of in ({"task": done}, {"metadata_filter": {"tenant": "a"}})
    )
    for token in (by_task, by_tenant):
        for stream in ("events", "ag-ui", "ai-sdk"):
            text = web.get(f"activity/{done}/{stream}", headers=token).text
            assert "the result" in text and "secret context" not in text, stream
        assert "secret context" not in web.get(f"activity/{done}", headers=token).text
        contents = web.get(f"activity/{done}/contents", headers=token)
        assert contents.status_code == 403 and "does not show the context" in contents.json()["detail"]
    for url in ("activity", "approvals", "failed", "spent"):
        assert web.get(url, headers=by_task).status_code == 403
    assert web.get("approvals", headers=by_tenant).json()[0]["arguments"] == '{"amount": 3}'
    assert web.get("failed", headers=by_tenant).json()["items"][0]["error"] == "it broke"
    assert web.get(f"activity/{tasks['failed']}", headers=by_task).status_code == 404


def test_a_token_of_one_task_shows_the_calls_that_wait_in_its_streams(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.web.server_sent_events.CHECK_SECONDS", 0.05)
    waiting = make_tasks({"tenant": "a"})["waiting"]
    ax.activity.update(waiting, "Waiting for approval: pay")
    for stream in ("ag-ui", "ai-sdk"):
        # A stream ends with its token, which on a slow machine may expire before the stream has begun.
        for seconds in (1, 5, 25):
            token = ax.web.read_token(task=waiting, expires_in=seconds)
            answer = web.get(f"activity/{waiting}/{stream}", params={"read_token": token})
            if answer.status_code == 200 and "amount" in answer.text:
                break
        assert answer.status_code == 200 and "amount" in answer.text, stream

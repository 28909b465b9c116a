"""Tenants in the HTTP API: every endpoint of its list says to another tenant what it says when there is nothing."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select, update

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLog, QueuePause
from agentexec.conversations.models import ConversationRow
from agentexec.db.clock import utc_now
from agentexec.journal.models import Approval
from agentexec.runtime import RUNTIME
from agentexec.schedules.record import declare
from agentexec.task import Priority, ScheduleDefinition
from agentexec.web import conversation_events
from agentexec.web.api import endpoints
from agentexec.web.endpoints import Endpoint
from tests.integration.web.conftest import headers

CALL = "call/1"
SCHEDULE = "nightly"
QUEUE = ax.CONF.queue_name

ENDPOINTS = {f"{endpoint.method} {endpoint.path}": endpoint for endpoint in endpoints()}
ACTS = [name for name, endpoint in ENDPOINTS.items() if endpoint.method != "GET"]
GETS = [name for name, endpoint in ENDPOINTS.items() if endpoint.method == "GET"]


def make_tasks(labels: dict[str, Any]) -> dict[str, UUID]:
    """Make tasks of a tenant: one that waits for an approval, one that runs, one that failed; and a schedule."""
    waiting = ax.enqueue_sync("work", {"key": "secret context"}, metadata=labels).agent_id
    failed = ax.enqueue_sync("work", {"key": "b"}, metadata=labels).agent_id
    ax.activity.error(failed, "it broke")
    running = ax.enqueue_sync("work", {"key": "c"}, metadata=labels).agent_id
    row = {"agent_id": waiting, "path": "p", "seq": 0, "call_id": CALL, "kind": "approval", "tool": "pay"}
    row |= {"arguments": '{"amount": 3}', "status": "pending", "created_at": utc_now()}
    with RUNTIME.engine.begin() as connection:
        connection.execute(insert(Approval).values(**row))
        is_it = Activity.agent_id == running
        connection.execute(
            update(Activity).where(is_it).values(status=ax.Status.RUNNING, started_at=utc_now())
        )
    schedule = ScheduleDefinition(
        SCHEDULE, "work", "0 3 * * *", "UTC", None, labels, Priority.LOW, None, False
    )
    declare(RUNTIME.engine, QUEUE, [schedule])
    tasks = {"waiting": waiting, "failed": failed, "running": running}
    for agent_id in tasks.values():
        ax.conversation(conversation_of(agent_id), task="work", metadata=labels).begin_sync()
    return tasks


def conversation_of(agent_id: UUID) -> str:
    """Return the id of the conversation that is there for each task."""
    return f"support:{agent_id}/1"


def url_of(endpoint: Endpoint, agent_id: UUID) -> str:
    name = QUEUE if "/queues/" in endpoint.path else SCHEDULE
    filled = endpoint.path.replace("{agent_id}", str(agent_id)).replace("{other_id}", str(agent_id))
    filled = filled.replace("{call_id:path}", CALL).replace("{rule_id}", str(agent_id))
    filled = filled.replace("{conversation_id:path}", conversation_of(agent_id))
    return filled.replace("{name:path}", name).lstrip("/")


def body_of(endpoint: Endpoint) -> dict[str, Any]:
    """Return the options of a request that has the body of an act on all tasks, if the endpoint is one."""
    if endpoint.method == "GET":
        return {}
    if endpoint.path == "/approval-rules":
        return {"json": {"tool": "pay", "where": [], "scope": "metadata", "metadata": {"tenant": "a"}}}
    if endpoint.path.endswith("/messages"):
        return {"json": {"text": "Hello."}}
    if endpoint.path.endswith("/fork"):
        return {"json": {"at": 1}}
    if endpoint.path.endswith("/budget"):
        return {"json": {"budget": "$1.00"}}
    return {"json": {} if "{" in endpoint.path else {"all": True}}


def is_for_people(name: str) -> bool:
    """Return True for an endpoint that no read token opens."""
    return name.endswith("/contents") or "/diff/" in name


def ask(web: TestClient, endpoint: Endpoint, agent_id: UUID, **who: Any) -> tuple[int, str]:
    """Ask an endpoint about a task, or about everything, and return its answer without times."""
    answer = web.request(
        endpoint.method, url_of(endpoint, agent_id), headers=headers(**who), **body_of(endpoint)
    )
    return answer.status_code, re.sub(r'"at":"[^"]*"', "", answer.text)


def record() -> list[Any]:
    """Return what acts would change."""
    with RUNTIME.engine.connect() as connection:
        tasks = connection.execute(select(Activity.agent_id, Activity.status, Activity.message)).all()
        lines = connection.execute(select(ActivityLog.id, ActivityLog.message)).all()
        calls = connection.execute(select(Approval.agent_id, Approval.status)).all()
        pauses = connection.execute(select(QueuePause.__table__)).all()
        chats = connection.execute(select(ConversationRow.id, ConversationRow.last_message)).all()
    return [sorted(map(tuple, rows), key=str) for rows in (tasks, lines, calls, pauses, chats)]


@pytest.fixture(autouse=True)
def _streams_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_events, "RESPONSE_SECONDS", 0.0)


@pytest.fixture
def empty(web: TestClient) -> dict[str, tuple[int, str]]:
    """Answers of all endpoints to tenant b while there is nothing."""
    nothing = UUID(int=7)
    return {name: ask(web, endpoint, nothing, tenant="b") for name, endpoint in ENDPOINTS.items()}


def test_another_tenant_sees_counts_and_changes_nothing(
    web: TestClient, empty: dict[str, tuple[int, str]]
) -> None:
    tasks = make_tasks({"tenant": "a"})
    before = record()
    for name, endpoint in ENDPOINTS.items():
        for agent_id in tasks.values():
            code, text = ask(web, endpoint, agent_id, tenant="b")
            assert (code, text.replace(str(agent_id), str(UUID(int=7)))) == empty[name], name
            if "{" in endpoint.path:
                assert code == 404, name
    assert record() == before


def test_a_tenant_sees_and_changes_its_own(web: TestClient) -> None:
    mine, theirs = make_tasks({"tenant": "b"}), make_tasks({"tenant": "a"})
    seen = {item["agent_id"] for item in web.get("activity", headers=headers(tenant="b")).json()["items"]}
    assert seen == set(map(str, mine.values()))
    count = web.get("activity/count", headers=headers(tenant="b")).json()
    assert count == {"queued": 1, "running": 1, "active": 2}
    assert web.get("overview", headers=headers(tenant="b")).json()["active"] == 2
    assert [call["agent_id"] for call in web.get("approvals", headers=headers(tenant="b")).json()] == [
        str(mine["waiting"])
    ]
    failed = web.get("failed", headers=headers(tenant="b")).json()
    assert [item["agent_id"] for item in failed["items"]] == [str(mine["failed"])]
    bulk = web.post("activity/cancel", json={"all": True}, headers=headers(tenant="b")).json()
    assert bulk == {"dry_run": False, "matched": 2, "matched_is_exact": True, "changed": 2, "more": False}
    assert web.get("activity/count", headers=headers(tenant="a")).json()["active"] == 2
    named = {"agent_ids": [str(theirs["failed"])]}
    assert web.post("failed/retry", json=named, headers=headers(tenant="b")).json()["matched"] == 0


def test_a_tenant_cannot_ask_for_another_value_of_its_own_label(web: TestClient) -> None:
    make_tasks({"tenant": "a", "plan": 1})
    for asked in ("metadata=tenant=a", "metadata=tenant:=1"):
        answer = web.get(f"activity?{asked}", headers=headers(tenant="b"))
        assert answer.status_code == 422
        assert "fixed" in answer.json()["detail"]
    assert (
        web.get("activity?metadata=tenant=a&metadata=plan:=1", headers=headers(tenant="a")).json()["total"]
        == 3
    )
    assert web.get("activity?metadata=plan=1", headers=headers(tenant="a")).json()["total"] == 0


def test_every_read_needs_the_right_to_read(web: TestClient) -> None:
    tasks = make_tasks({"tenant": "a"})
    for name in GETS:
        code, _ = ask(web, ENDPOINTS[name], tasks["waiting"], rights="act")
        assert code == (200 if name == "GET /me" else 403), name


def test_every_act_needs_the_right_to_act_and_a_content_type(web: TestClient) -> None:
    tasks = make_tasks({"tenant": "a"})
    before = record()
    for name in ACTS:
        code, _ = ask(web, ENDPOINTS[name], tasks["waiting"], rights="read")
        assert code == 403, name
        url = url_of(ENDPOINTS[name], tasks["waiting"])
        for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            answer = web.request(
                ENDPOINTS[name].method,
                url,
                content='{"all": true}',
                headers=headers() | {"Content-Type": kind},
            )
            assert answer.status_code in (415, 422), (name, answer.text)
    assert record() == before


def test_nobody_is_asked_to_sign_in(web: TestClient) -> None:
    for endpoint in ENDPOINTS.values():
        url = url_of(endpoint, UUID(int=7))
        answer = web.request(endpoint.method, url, headers={"X-Name": "nobody"})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), url
        assert answer.json()["detail"]


def test_a_token_of_one_task_shows_that_task_and_changes_nothing(web: TestClient) -> None:
    tasks = make_tasks({"tenant": "a"})
    token = {"Authorization": f"Bearer {ax.web.read_token(task=tasks['failed'])}"}
    before = record()
    for name, endpoint in ENDPOINTS.items():
        own, other = (
            web.request(endpoint.method, url_of(endpoint, tasks[which]), headers=token, **body_of(endpoint))
            for which in ("failed", "running")
        )
        if name == "GET /me":
            assert own.json()["agent_id"] == str(tasks["failed"])
        elif endpoint.method == "GET" and "{agent_id}" in endpoint.path:
            assert own.status_code == (403 if is_for_people(name) else 200), (name, own.text)
            assert other.status_code == 404, name
        else:
            assert own.status_code == other.status_code == 403, name
        assert str(tasks["running"]) not in own.text
    assert record() == before


def test_a_token_of_a_tenant_reads_as_that_tenant_and_changes_nothing(web: TestClient) -> None:
    mine, theirs = make_tasks({"tenant": "b"}), make_tasks({"tenant": "a"})
    token = {"Authorization": f"Bearer {ax.web.read_token(metadata_filter={'tenant': 'b'})}"}
    before = record()
    for name, endpoint in ENDPOINTS.items():
        own, other = (
            web.request(
                endpoint.method, url_of(endpoint, tasks["failed"]), headers=token, **body_of(endpoint)
            )
            for tasks in (mine, theirs)
        )
        if endpoint.method != "GET":
            assert (own.status_code, other.status_code) == (403, 403), name
        else:
            assert own.status_code == (403 if is_for_people(name) else 200), (name, own.text)
            is_about = "{agent_id}" in endpoint.path or "{conversation_id" in endpoint.path
            assert other.status_code == (404 if is_about else own.status_code), name
        assert not any(str(agent_id) in own.text for agent_id in theirs.values())
    assert record() == before

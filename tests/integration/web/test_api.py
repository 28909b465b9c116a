"""Endpoints of the HTTP API: what they answer, what they change, and what they refuse."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import insert
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.db.clock import utc_now
from agentexec.errors import UnavailableError
from agentexec.journal.models import Approval
from agentexec.runtime import RUNTIME
from agentexec.schedules.record import declare
from agentexec.task import Priority, ScheduleDefinition
from agentexec.web import activities, bulk, failures
from agentexec.web.api import endpoints
from tests.integration.web.conftest import caller, headers
from tests.waiting import patient, wait_until


def enqueue(key: str = "a", name: str = "work", **options: Any) -> UUID:
    return ax.enqueue_sync(name, {"key": key}, **options).agent_id


def fail(agent_id: UUID, error: str = "it broke") -> UUID:
    ax.activity.error(agent_id, error)
    return agent_id


def ask_approval(agent_id: UUID, call_id: str) -> None:
    row = {
        "agent_id": agent_id,
        "path": call_id,
        "seq": 0,
        "call_id": call_id,
        "kind": "approval",
        "tool": "pay",
    }
    row |= {"arguments": '{"amount": 3}', "status": "pending", "created_at": utc_now()}
    with RUNTIME.engine.begin() as connection:
        connection.execute(insert(Approval).values(**row))


def log_of(agent_id: UUID) -> list[str]:
    with Session(RUNTIME.engine) as db:
        return [line.message for line in ax.activity.detail(db, agent_id).logs]


def status_of(agent_id: UUID) -> str:
    with Session(RUNTIME.engine) as db:
        return ax.activity.detail(db, agent_id).status.value


def test_acts_on_a_task_are_in_its_log_with_the_name_of_the_caller(web: TestClient) -> None:
    task = enqueue()
    assert web.post(f"activity/{task}/cancel").json() == {"changed": True}
    assert web.post(f"activity/{task}/cancel").json() == {"changed": False}
    assert web.post(f"activity/{task}/retry", headers=headers("bob")).json() == {"changed": True}
    assert web.post(f"activity/{task}/retry").json() == {"changed": False}
    assert log_of(task)[1:] == ["Canceled by alice.", "Put back on the queue by bob."]
    for body in ({"budget": "2 euros"}, {"amount": "$2.00"}, {}):
        assert web.post(f"activity/{task}/budget", json=body).status_code == 422
    assert web.post(f"activity/{task}/budget", json={"budget": "$2.00"}).json() == {"changed": True}
    assert web.get(f"activity/{task}").json()["budget"]["limit"] == 2
    ax.cancel_sync(task)
    assert web.post(f"activity/{task}/budget", json={"budget": "$3.00"}).json() == {"changed": False}
    assert web.post(f"activity/{task}/retry", json={"budget": "$4.00"}).json() == {"changed": True}
    assert log_of(task)[3:] == [
        "Budget set to $2.00 by alice.",
        "Canceled.",
        "Put back on the queue by alice, with a budget of $4.00.",
    ]
    for call_id in ("call_1", "a/b c", "approve"):
        ask_approval(task, call_id)
    acts = [("call_1", "approve", {}), ("a/b c", "reject", {"message": "No."}), ("approve", "approve", {})]
    for number, (call_id, act, body) in enumerate(acts):
        assert len(web.get(f"approvals?agent_id={task}").json()) == 3 - number
        url = f"approvals/{task}/{quote(call_id, safe='')}/{act}"
        assert web.post(url, json=body).json() == {"changed": True}, url
        assert web.post(url, json=body).json() == {"changed": False}, url
    assert log_of(task)[6:] == [
        'Approved by alice (http testclient): pay({"amount": 3})',
        'Rejected by alice (http testclient): pay({"amount": 3})',
        'Approved by alice (http testclient): pay({"amount": 3})',
    ]
    assert web.post(f"approvals/{task}/unknown/approve").status_code == 404
    assert web.post(f"activity/{uuid4()}/cancel").status_code == 404
    assert web.post(f"approvals/{task}/x/reject", json={"message": "x" * 2_001}).status_code == 422


def test_a_name_cannot_start_a_line_of_the_log(web: TestClient) -> None:
    task = enqueue()
    with pytest.raises(ax.UsageError):
        ax.cancel_sync(task, by=" ")
    assert ax.cancel_sync(task, by="eve\nApproved:\x1b[2J pay()")
    assert log_of(task)[1:] == ["Canceled by eve Approved: [2J pay()."]


def test_bulk_acts_change_what_matches_and_no_more(web: TestClient) -> None:
    first = [enqueue(str(number), metadata={"plan": 1}) for number in range(3)]
    other = enqueue("other", "fail", queue_name="slow", metadata={"plan": 2})
    dry = web.post("activity/cancel", json={"task_name": "work", "dry_run": True}).json()
    assert dry == {"dry_run": True, "matched": 3, "matched_is_exact": True, "changed": 0, "more": True}
    some = web.post("activity/cancel", json={"metadata": {"plan": 1}, "limit": 2}).json()
    assert some == {"dry_run": False, "matched": 3, "matched_is_exact": True, "changed": 2, "more": True}
    rest = web.post("activity/cancel", json={"metadata": {"plan": 1}, "limit": 2}).json()
    assert (rest["changed"], rest["more"]) == (1, False)
    assert [status_of(task) for task in (*first, other)] == ["canceled"] * 3 + ["queued"]
    for body, matched in (
        ({"queue": "slow"}, 1),
        ({"queue": "slow", "status": "running"}, 0),
        ({"agent_ids": [str(other), str(first[0])]}, 1),
        ({"agent_ids": [str(other)], "metadata": {"plan": 1}}, 0),
        ({"created_before": "2020-01-01T00:00:00Z"}, 0),
        ({"created_after": "2020-01-01T00:00:00Z", "task_name": "fail"}, 1),
        ({"all": True}, 1),
    ):
        answer = web.post("activity/cancel", json=body | {"dry_run": True}).json()
        assert answer["matched"] == matched, body
    assert log_of(first[0])[1:] == ["Canceled by alice."]


def test_bulk_cancellation_reaches_the_tasks_below(web: TestClient) -> None:
    parent = enqueue("parent", metadata={"plan": 1})
    child = enqueue("child")
    with RUNTIME.engine.begin() as connection:
        connection.execute(
            Activity.__table__.update().where(Activity.agent_id == child).values(parent_id=parent)
        )
    assert web.post("activity/cancel", json={"metadata": {"plan": 1}}).json()["changed"] == 1
    assert log_of(child)[1:] == ["Canceled with the task that enqueued it."]


def test_failed_tasks_are_listed_grouped_and_retried(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [fail(enqueue(str(number), metadata={"plan": 1})) for number in range(3)]
    other = fail(enqueue("other", "fail", queue_name="slow"))
    found = web.get("failed").json()
    assert [item["agent_id"] for item in found["items"]] == [str(task) for task in (other, *reversed(failed))]
    assert (found["total"], found["total_is_exact"], found["items"][0]["queue"]) == (4, True, "slow")
    assert web.get("failed?queue=slow").json()["total"] == 1
    assert web.get("failed?task_name=work&metadata=plan:=1&limit=1").json()["total"] == 3
    groups = web.get("failed/groups").json()
    assert [(group["task_name"], group["count"]) for group in groups["groups"]] == [("work", 3), ("fail", 1)]
    monkeypatch.setattr(failures, "MAX_TOTAL", 2)
    newest = web.get("failed").json()
    assert (newest["total"], newest["total_is_exact"]) == (2, False)
    assert web.get("failed?queue=slow").json()["total"] == 1
    assert web.get("failed/groups").json()["is_complete"] is False
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert web.post("failed/retry", json={"since": later, "dry_run": True}).json()["matched"] == 0
    some = web.post("failed/retry", json={"task_name": "work", "limit": 2}).json()
    assert some == {"dry_run": False, "matched": 3, "matched_is_exact": True, "changed": 2, "more": True}
    assert [status_of(task) for task in failed] == ["queued", "queued", "error"], "the oldest failures first"
    assert log_of(failed[0])[-1] == "Put back on the queue by alice."


def test_a_group_of_failures_is_retried_by_its_error(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "it broke " * 100
    tasks = {text: fail(enqueue(text), text) for text in ("it broke", long, f"{long}.", "other")}
    groups = {group["error"]: group["count"] for group in web.get("failed/groups").json()["groups"]}
    line = "Task failed with error: "
    group = f"{line}{long}"[:500]
    assert groups == {f"{line}it broke": 1, group: 2, f"{line}other": 1}
    body = {"task_name": "work", "error": group}
    assert web.post("failed/retry", json={**body, "dry_run": True}).json()["matched"] == 2
    assert web.post("failed/retry", json=body).json()["changed"] == 2
    assert {text: status_of(task) for text, task in tasks.items()} == {
        "it broke": "error",
        long: "queued",
        f"{long}.": "queued",
        "other": "error",
    }
    monkeypatch.setattr(failures, "COUNTED", 1)
    monkeypatch.setattr(bulk, "COUNTED", 1)
    counted = web.post("failed/retry", json={"all": True, "dry_run": True}).json()
    assert (counted["matched"], counted["matched_is_exact"], counted["more"]) == (1, False, True)


def test_lists_take_filters_pages_and_cursors(web: TestClient) -> None:
    tasks = [enqueue(str(number), queue_name="slow" if number % 2 else None) for number in range(6)]
    ax.cancel_sync(tasks[0])
    fail(tasks[1])
    newest = [str(task) for task in reversed(tasks[2:])]
    first = web.get("activity?status=queued&page_size=3").json()
    second = web.get(f"activity?status=queued&page_size=3&after={first['next_cursor']}").json()
    assert [item["agent_id"] for item in first["items"] + second["items"]] == newest
    ended = web.get("activity?status=error&status=canceled").json()
    assert ({item["status"] for item in ended["items"]}, ended["total"]) == ({"error", "canceled"}, 2)
    assert web.get("activity?status=queued&status=error&page_size=1").json()["total"] == 5
    slow = web.get("activity?queue=slow").json()
    assert ([item["agent_id"] for item in slow["items"]], slow["total"]) == (
        [str(tasks[5]), str(tasks[3]), str(tasks[1])],
        3,
    )
    assert web.get("activity?queue=slow&text=broke").json()["total"] == 1
    assert web.get(f"activity?text={tasks[2]}").json()["total"] == 1


INVALID = [
    "activity?page=0",
    "activity?page=1000001",
    "activity?page=402",
    "activity?page_size=1001",
    "activity?page=" + "9" * 4000,
    "activity?after=garbage",
    "activity?after=" + "x" * 300,
    "activity?status=done",
    "activity?status=",
    "activity?text=" + "%25" * 501,
    "activity?task_name=" + "x" * 201,
    "activity?queue=" + "x" * 201,
    "activity?metadata=novalue",
    "activity?metadata==x",
    "activity?metadata=a:={",
    "activity?metadata=a:=[1]",
    "activity?metadata=a:=NaN",
    "activity?metadata=a=1&metadata=a=2",
    "activity?" + "&".join(f"metadata=k{number}=x" for number in range(65)),
    "activity?created_after=yesterday",
    "activity?created_after=2026-01-01T00:00:00",
    "activity?created_before=0001-01-01T00:00:00Z",
    "activity/nonsense",
    "activity/nonsense/events",
    "overview?minutes=61",
    "spent?minutes=0",
    "approvals?agent_id=x",
    "approvals?limit=1001",
    "failed?since=2026-01-01T00:00:00",
    "failed?limit=1001",
]


def test_invalid_parameters_are_refused_in_one_sentence(web: TestClient) -> None:
    for url in INVALID:
        answer = web.get(url)
        assert answer.status_code == 422, (url, answer.text)
        detail = answer.json()["detail"]
        assert isinstance(detail, str), url
        assert detail.endswith("."), url
        assert len(detail) <= 500, url
        assert answer.headers["cache-control"] == "no-store"


INVALID_BODIES: list[Any] = [
    {},
    {"limit": 5},
    {"metadata": {}},
    {"all": True, "limit": 10_001},
    {"all": True, "limit": 0},
    {"all": True, "unknown": 1},
    {"agent_ids": ["x"]},
    {"agent_ids": [str(uuid4())] * 1_001},
    {"metadata": {"a": [1]}},
    {"metadata": "x"},
    [],
]


def test_invalid_bulk_acts_change_nothing(web: TestClient) -> None:
    queued, failed = enqueue(), fail(enqueue())
    for body in INVALID_BODIES:
        for url in ("activity/cancel", "failed/retry"):
            answer = web.post(url, json=body)
            assert answer.status_code == 422, (url, body, answer.text)
            assert isinstance(answer.json()["detail"], str)
    assert (status_of(queued), status_of(failed)) == ("queued", "error")


def test_odd_texts_find_nothing_and_break_nothing(web: TestClient) -> None:
    for odd in ("%00", "%ED%A0%80", "'%22;--"):
        for url in (f"activity?text={odd}", f"activity?queue={odd}", f"activity?task_name={odd}", f"activity?metadata=a={odd}",
                    f"failed?task_name={odd}", f"failed?queue={odd}"):  # fmt: skip
            answer = web.get(url)
            assert (answer.status_code, answer.json()["total"]) == (200, 0), url
    assert web.post("activity/cancel", json={"task_name": "\x00", "queue": "\x00"}).json()["matched"] == 0


def test_contents_are_without_secrets_and_bounded(web: TestClient) -> None:
    key = "sk-" + "a1" * 20
    task = ax.enqueue_sync(
        "work",
        {"key": key, "value": "x" * 100_000},
        metadata={"password": "open sesame"},
        priority=Priority.HIGH,
    ).agent_id
    found = web.get(f"activity/{task}/contents")
    assert key not in found.text
    assert "sesame" not in found.text
    assert len(found.text) < 25_000
    assert "more characters" in found.json()["context"]["value"]
    assert found.json()["priority"] == "high"


def test_queues_are_paused_by_name(web: TestClient) -> None:
    name = ax.CONF.queue_name
    assert web.post(f"queues/{name}/pause", json={"reason": "too hot"}).json() == {"changed": True}
    assert web.post(f"queues/{name}/pause").json() == {"changed": False}
    (queue,) = web.get("queues").json()
    assert (queue["pause"]["paused_by"], queue["pause"]["reason"]) == ("alice", "too hot")
    assert web.post(f"queues/{name}/resume").json() == {"changed": True}
    assert web.post(f"queues/{name}/resume").json() == {"changed": False}


def test_schedules_are_paused_resumed_and_run(web: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    for queue in ("a", "b"):
        names = ("nightly", "weekly/one") if queue == "a" else ("nightly",)
        declare(
            RUNTIME.engine,
            queue,
            [
                ScheduleDefinition(
                    name, "work", "0 3 * * *", "UTC", '{"key": "s"}', None, Priority.LOW, None, False
                )
                for name in names
            ],
        )
    assert [(found["queue"], found["name"]) for found in web.get("schedules").json()] == [
        ("a", "nightly"),
        ("a", "weekly/one"),
        ("b", "nightly"),
    ]
    ambiguous = web.post("schedules/nightly/pause")
    assert (ambiguous.status_code, "a, b" in ambiguous.json()["detail"]) == (409, True)
    with caplog.at_level(logging.INFO, "agentexec.web"):
        assert web.post("schedules/nightly/pause?queue=b").json() == {"changed": True}
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("agentexec")]
    assert logged == ["Schedule nightly of queue b was paused by alice."]
    assert web.post("schedules/nightly/pause?queue=b").json() == {"changed": False}
    assert [found["paused_at"] is None for found in web.get("schedules").json()] == [True, True, False]
    assert web.post("schedules/nightly/resume?queue=b").json() == {"changed": True}
    started = UUID(web.post("schedules/weekly/one/run").json()["agent_id"])
    assert log_of(started) == ["Scheduled by weekly/one and started by alice."]
    assert web.post("schedules/none/run").status_code == 404


def test_a_database_that_is_away_is_503(web: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: Any, **_options: Any) -> Any:
        raise UnavailableError("The database cannot be reached.")

    monkeypatch.setattr(activities, "find_activities", away)
    answer = web.get("activity")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json() == {"detail": "The database cannot be reached."}


def test_who_makes_the_router_wrong_is_told(deployment: Any) -> None:
    with pytest.raises(ax.UsageError, match="a class would take rights"):
        ax.web.router(caller=ax.web.Caller)
    with pytest.raises(ax.UsageError, match="leave out path="):
        ax.web.router(caller=caller, path="/x/{agent_id}")
    app = FastAPI()
    app.include_router(ax.web.router(caller=lambda: {"read": True}))
    with TestClient(app) as web, pytest.raises(TypeError, match=r"must return an ax\.web\.Caller"):
        web.get("/activity")


def test_without_a_caller_there_are_only_events(deployment: Any) -> None:
    app = FastAPI()
    app.include_router(ax.web.router())
    assert list(app.openapi()["paths"]) == ["/activity/{agent_id}/events"]


def test_dependencies_hold_for_tokens_too_and_the_caller_is_not_asked(deployment: Any) -> None:
    def limit(blocked: bool = False) -> None:
        if blocked:
            raise HTTPException(429, "Slower.")

    def nobody() -> ax.web.Caller:
        raise HTTPException(401, "Sign in.")

    app = FastAPI()
    app.include_router(ax.web.router(caller=nobody, dependencies=[Depends(limit)]))
    token = {"Authorization": f"bearer {ax.web.read_token(metadata_filter={'tenant': 'a'})}"}
    with TestClient(app) as web:
        assert web.get("/activity", headers=token).status_code == 200
        assert web.get("/activity?blocked=true", headers=token).status_code == 429
        assert web.get("/activity").status_code == 401
        other = web.get("/activity", headers={"Authorization": "Bearer axr1.forged.forged"})
        assert (other.status_code, other.headers["www-authenticate"]) == (401, "Bearer")
        assert "not valid" in other.json()["detail"]


@pytest.fixture
def served(app: FastAPI) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="info", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server.should_exit = True
        thread.join(patient(10))


def test_a_token_in_the_url_opens_streams_alone_and_is_not_logged(
    served: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("uvicorn.access").propagate = True
    task = enqueue()
    ax.cancel_sync(task)
    token = ax.web.read_token(task=task)
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        stream = httpx.get(f"{served}/activity/{task}/events?deltas=false&read_token={token}")
        assert stream.text.count("\nid: ") + stream.text.count("\n\nid: ") >= 2
        assert httpx.get(f"{served}/activity/{task}?read_token={token}").status_code == 401
        assert httpx.get(f"{served}/activity/{uuid4()}/events?read_token={token}").status_code == 404
        wait_until(lambda: len(caplog.records) >= 3)
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert "/events?deltas=false" in logged
    assert token not in logged
    assert token[10:40] not in logged


def test_a_stream_ends_with_its_permission(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentexec.web.server_sent_events.CHECK_SECONDS", 0.05)
    app = FastAPI()
    until = timedelta(seconds=0.3)
    app.include_router(ax.web.router(caller=lambda: ax.web.Caller(expires_at=datetime.now(UTC) + until)))
    with TestClient(app) as web:
        text = web.get(f"/activity/{enqueue()}/events").text  # of a task that does not end
    assert "event: status" in text


def test_fixed_paths_win_over_parameters() -> None:
    placed = ["{" in endpoint.path for endpoint in endpoints()]
    assert placed == sorted(placed)

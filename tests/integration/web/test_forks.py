"""Forks and comparisons over HTTP: what a caller may fork, and what it is shown of two tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents import Agent, function_tool
from fastapi import FastAPI
from fastapi.testclient import TestClient

import agentexec as ax
from agentexec.web import forks
from tests.integration.web.conftest import caller, headers

Harness = ax.testing.Harness

pool = ax.Pool()


@function_tool
async def search(query: str, api_key: str) -> str:
    """Search."""
    return f"results for {query}"


@pool.task("research")
async def research(agent_id: UUID, context: dict[str, str]) -> str:
    agent = Agent("Researcher", tools=[search])
    return (await ax.OpenAIRunner(agent_id).run(agent, context["text"])).final_output


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ax.testing.harness(pool) as harness:
        yield harness


@pytest.fixture
def web(harness: Harness) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(ax.web.router(caller=caller), prefix="/api")
    with TestClient(app, base_url="http://test/api", headers=headers()) as client:
        yield client


def run_task(harness: Harness, answer: str = "first", tenant: str = "a") -> UUID:
    harness.model.call_tool("search", {"query": "a", "api_key": "sk-live-1234567890"}).say(answer)
    return harness.run("research", {"text": "Go."}, metadata={"tenant": tenant}).agent_id


def test_a_task_is_forked_at_a_turn_and_compared_with_its_fork(harness: Harness, web: TestClient) -> None:
    first = run_task(harness)
    assert web.get(f"activity/{first}/runs").json() == [{"run": "Researcher#1", "turns": 2, "last": 2}]
    body = {"at": 2, "input": "Say it in German.", "model": "gpt-9"}
    fork = web.post(f"activity/{first}/fork", json=body).json()["agent_id"]
    harness.model.say("zweites")
    harness.run_all()
    detail = web.get(f"activity/{fork}").json()
    changed = f"Forked from task {first} at turn 2 of Researcher#1 with model gpt-9 and a message by alice."
    assert detail["logs"][0]["message"] == changed

    found = web.get(f"activity/{first}/diff/{fork}").json()
    assert (found["first"]["result"], found["second"]["result"]) == ("first", "zweites")
    assert (found["first"]["requests"], found["second"]["requests"]) == (2, 1)
    assert [(step["change"], step["count"], step["contents"]) for step in found["steps"]] == [
        ("same", 2, None),
        ("removed", 1, ["first"]),
        ("added", 1, ["zweites"]),
    ]
    assert found["is_complete"]
    same = web.get(f"activity/{first}/diff/{first}").json()
    assert [(step["change"], step["count"]) for step in same["steps"]] == [("same", 3)]


def test_a_comparison_hides_secrets_and_is_bounded(
    harness: Harness, web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = run_task(harness, "x" * 9_000), run_task(harness, "y")
    answer = web.get(f"activity/{first}/diff/{second}")
    assert "sk-live-1234567890" not in answer.text
    assert "7000 more characters; see `agentexec show --diff --full`" in answer.text
    monkeypatch.setattr(forks, "COMPARED", 2)
    assert not web.get(f"activity/{first}/diff/{first}").json()["is_complete"]
    monkeypatch.setattr(forks, "COMPARED", 3)
    assert web.get(f"activity/{first}/diff/{first}").json()["is_complete"]
    monkeypatch.setattr(forks, "SHOWN", 2)
    bounded = web.get(f"activity/{first}/diff/{second}").json()
    assert (len(bounded["steps"]), bounded["is_complete"]) == (2, False)


def test_nobody_forks_or_compares_what_it_may_not_see(harness: Harness, web: TestClient) -> None:
    mine, theirs = run_task(harness, tenant="b"), run_task(harness, tenant="a")
    as_b = headers(tenant="b")
    assert web.post(f"activity/{theirs}/fork", json={"at": 2}, headers=as_b).status_code == 404
    for pair in (f"{mine}/diff/{theirs}", f"{theirs}/diff/{mine}"):
        assert web.get(f"activity/{pair}", headers=as_b).status_code == 404
    assert web.get(f"activity/{mine}/diff/{mine}", headers=as_b).status_code == 200
    reader = headers(rights="read")
    assert web.post(f"activity/{mine}/fork", json={"at": 2}, headers=reader).status_code == 403
    fork = web.post(f"activity/{mine}/fork", json={"at": 2}, headers=as_b).json()["agent_id"]
    assert web.get(f"activity/{fork}/contents", headers=as_b).json()["metadata"] == {"tenant": "b"}
    assert len(harness.tasks) == 3


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"at": 4}, "turns 1 to 2"),
        ({"at": 0}, "at: "),
        ({"at": 1, "run": "Writer#1"}, "has no run Writer#1"),
        ({"at": 1, "queue": "other"}, "no such field"),
        ({"at": 1, "input": ""}, "input="),
    ],
)
def test_a_fork_from_nowhere_is_refused(
    harness: Harness, web: TestClient, body: dict[str, Any], sentence: str
) -> None:
    answer = web.post(f"activity/{run_task(harness)}/fork", json=body)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
    assert len(harness.tasks) == 1


def test_a_task_without_agents_has_no_runs(harness: Harness, web: TestClient) -> None:
    task = ax.enqueue_sync("research", {"text": "Go."}).agent_id
    assert web.get(f"activity/{task}/runs").json() == []
    assert "no run of an agent" in web.post(f"activity/{task}/fork", json={"at": 1}).json()["detail"]
    assert web.get(f"activity/{uuid4()}/runs").status_code == 404

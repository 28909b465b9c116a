"""Conversations over HTTP: messages, history, events that resume, and the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from agents import Agent
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import agentexec as ax
from agentexec.testing import Harness
from agentexec.web import conversation_events
from tests.integration.web.conftest import caller, headers
from tests.waiting import wait_until

CHAT = "support:42/öl ?"
PATH = "conversations/support%3A42%2F%C3%B6l%20%3F"

PARTS = [
    "/",
    "messages",
    "/history",
    "events/",
    "%",
    "%2F",
    "%252f",
    "?",
    "#",
    "..",
    " ",
    "+",
    ";",
    "\\",
    "\n",
    "é",
    "a",
]
IDS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join)

pool = ax.Pool()


@pool.task("support")
async def support(agent_id: UUID, context: ax.Turn) -> str:
    agent = Agent("Support", instructions="Answer.")
    result = await ax.OpenAIRunner(agent_id).run(agent, context.text, session=context.session)
    return str(result.final_output)


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ax.testing.harness(pool) as harness:
        yield harness


@pytest.fixture
def web(harness: Harness) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(ax.web.router(caller=caller), prefix="/api")
    with TestClient(app, base_url="http://test/api", headers=headers(tenant="a")) as client:
        yield client


@pytest.fixture
def chat(harness: Harness) -> ax.Conversation:
    chat = ax.conversation(CHAT, task="support", metadata={"tenant": "a"})
    chat.begin_sync()
    ax.conversation("other", task="support", metadata={"tenant": "b"}).begin_sync()
    return chat


def send(web: TestClient, text: str, **fields: Any) -> Any:
    return web.post(f"{PATH}/messages", json={"text": text, **fields})


def test_a_browser_sends_messages_and_reads_the_answers(
    harness: Harness, web: TestClient, chat: ax.Conversation
) -> None:
    harness.model.say("Hello.")
    first = send(web, "Hi", idempotency_key="click").json()
    assert send(web, "Hi", idempotency_key="click").json() == first
    assert send(web, "How are you?", if_busy="reject").status_code == 409
    assert send(web, "How are you?", if_busy="steer").json()["number"] == 2
    harness.run_all()
    assert [entry["item"]["role"] for entry in web.get(f"{PATH}/history").json()] == [
        "user",
        "user",
        "assistant",
    ]
    last = web.get(f"{PATH}/messages", params={"limit": 1}).json()
    assert [(entry["text"], entry["state"]) for entry in last] == [("How are you?", "joined")]
    assert [found["id"] for found in web.get("conversations").json()] == [CHAT]
    found = web.get(PATH).json()
    assert (found["id"], found["messages"], found["metadata"]) == (CHAT, 2, {"tenant": "a"})
    # The turn belongs to the tenant of its conversation.
    assert web.get(f"activity/{first['agent_id']}").json()["status"] == "complete"


def test_the_events_go_on_from_turn_to_turn_over_responses_that_end(
    harness: Harness, web: TestClient, chat: ax.Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_events, "RESPONSE_SECONDS", 0.1)
    events: list[dict[str, Any]] = []
    # No event has been seen, and yet none is missed that happens before the next request.
    last = read_events(web, events, None)
    harness.model.say("Hello.").say("Fine.")
    send(web, "Hi")
    send(web, "How are you?")
    harness.run_all()

    def seen() -> bool:
        nonlocal last
        last = read_events(web, events, last)
        return [event["type"] for event in events].count("result") == 2

    wait_until(seen)
    texts = [event["data"].get("text") for event in events if event["type"] == "message"]
    assert texts == ["Hi", "How are you?"]
    assert len({event["id"] for event in events}) == len(events)
    assert web.get(f"{PATH}/events?after=nonsense").status_code == 422


def read_events(web: TestClient, events: list[dict[str, Any]], last: str | None) -> str:
    answer = web.get(f"{PATH}/events", headers={} if last is None else {"Last-Event-ID": last})
    lines = answer.text.splitlines()
    events += [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return [line.removeprefix("id: ") for line in lines if line.startswith("id: ")][-1]


def test_a_deleted_conversation_is_gone_and_its_turns_are_canceled(
    harness: Harness, web: TestClient, chat: ax.Conversation
) -> None:
    harness.model.say("Hello.")
    send(web, "Hi")
    harness.run_all()
    waiting = send(web, "And now?").json()
    assert web.delete(PATH).json() == {"changed": True}
    assert web.get(f"activity/{waiting['agent_id']}").json()["status"] == "canceled"
    for answer in (web.get(PATH), web.get(f"{PATH}/history"), web.delete(PATH), send(web, "Still there?")):
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"There is no conversation {CHAT!r}."
    assert not chat.delete_sync()
    assert chat.history_sync() == []
    # The id is free for a new one.
    assert chat.send_sync("Hi").number == 1


def test_another_tenants_conversation_is_not_there(web: TestClient, chat: ax.Conversation) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/messages"), ("DELETE", "")):
        body = {"json": {"text": "Hi"}} if method == "POST" else {}
        assert web.request(method, f"conversations/other{path}", **body).status_code == 404


@given(name=IDS.filter(lambda name: name not in (".", "..") and not name.endswith(" ")))
@example(name="a/messages")
@example(name="/")
@example(name="%2Fevents")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_id_names_its_own_conversation_in_a_url(web: TestClient, name: str) -> None:
    asyncio.run(use_over_http(web.app, name))


async def use_over_http(app: Any, name: str) -> None:
    """Do with a conversation what its URLs are for; Starlette's TestClient decodes a path twice."""
    path = f"conversations/{quote(name, safe='')}"
    await ax.conversation(name, task="support", metadata={"tenant": "a"}).begin()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test/api", headers=headers(tenant="a")
    ) as web:
        assert (await web.get(path)).json()["id"] == name
        assert (await web.get(f"{path}/history")).json() == []
        sent = (await web.post(f"{path}/messages", json={"text": "Hi"})).json()
        assert sent["conversation"] == name
        assert (await web.get(f"{path}/messages")).json() == [sent]
        assert (await web.delete(path)).json() == {"changed": True}
        assert (await web.get(path)).status_code == 404


@pytest.mark.parametrize("name", [".", ".."])
def test_an_id_that_no_url_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ax.UsageError, match="URLs"):
        ax.conversation(name, task="support")


def test_slashes_that_a_proxy_has_decoded_still_lead_to_a_conversation(
    web: TestClient, chat: ax.Conversation
) -> None:
    assert web.get("conversations/support:42/öl%20%3F/messages").json() == []
    assert web.get("conversations/support:42/öl%20%3F").json()["id"] == CHAT

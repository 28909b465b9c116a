"""The example of a chat: the application begins a conversation, and a browser sends to it over the API."""

from __future__ import annotations

import importlib
import sys

import pytest
from fastapi.testclient import TestClient

import agentexec as ax
from tests.deployment import REPOSITORY


def test_the_page_has_a_conversation_whose_messages_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples/chat"))
    for name in ("app", "worker"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    app, worker = importlib.import_module("app"), importlib.import_module("worker")

    with ax.testing.harness(worker.pool) as harness, TestClient(app.app) as web:
        assert "EventSource" in web.get("/").text
        path = f"/api/conversations/{web.post('/chats').json()['id']}"
        harness.model.say("It is on its way.")
        message = web.post(f"{path}/messages", json={"text": "Where is my order?", "if_busy": "steer"}).json()
        harness.run_all()
        assert web.get(f"/api/activity/{message['agent_id']}").json()["status"] == "complete"
        roles = [entry["item"]["role"] for entry in web.get(f"{path}/history").json()]
        assert roles == ["user", "assistant"]
    for name in ("app", "worker"):
        sys.modules.pop(name, None)

"""Streams for other front ends over HTTP; `tests/faults/test_front_ends.py` reads them with the front ends' own clients."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

import agentexec as ax
from tests.integration.web.conftest import headers


@pytest.fixture
def agent_id() -> Any:
    """A task that has ended."""
    agent_id = ax.activity.create("by hand", metadata={"tenant": "a"})
    ax.activity.update(agent_id, "Half way", percentage=50)
    ax.activity.complete(agent_id)
    return agent_id


def contents(frame: str) -> str:
    """A frame without its id, which also tells how many live events were seen that told nothing."""
    return frame if frame.startswith("data: ") else frame.partition("\n")[2]


@pytest.mark.parametrize(
    ("path", "first", "last"),
    [("ag-ui", "RUN_STARTED", "RUN_FINISHED"), ("ai-sdk", '"type":"start"', "data: [DONE]")],
)
def test_a_task_streams_to_its_end_and_goes_on_after_any_event(
    web: TestClient, agent_id: Any, path: str, first: str, last: str
) -> None:
    url = f"/activity/{agent_id}/{path}"
    whole = web.get(url)
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert whole.headers["x-agentexec-task"] == str(agent_id)
    assert ("x-vercel-ai-ui-message-stream" in whole.headers) is (path == "ai-sdk")
    _retry, *frames = whole.text.strip().split("\n\n")
    assert first in frames[0] and last in frames[-1]
    ids = [frame.removeprefix("id: ").partition("\n")[0] for frame in frames if frame.startswith("id: ")]
    for index, id in enumerate(ids[:-1], start=1):
        _retry, *rest = web.get(url, headers={"Last-Event-ID": id}).text.strip().split("\n\n")
        assert [contents(frame) for frame in rest] == [contents(frame) for frame in frames[index:]]
    assert web.get(url, headers={"Last-Event-ID": ids[-1]}).status_code == 204
    assert web.get(url, params={"after": "nonsense"}).status_code == 422


@pytest.mark.parametrize("path", ["ag-ui", "ai-sdk"])
def test_another_tenants_task_is_unknown_and_a_read_token_reads_one(
    web: TestClient, agent_id: Any, path: str
) -> None:
    url = f"/activity/{agent_id}/{path}"
    assert web.get(url, headers=headers(tenant="b")).status_code == 404
    assert web.get(url, headers=headers(tenant="a")).status_code == 200
    assert web.get(url, headers=headers("nobody")).status_code == 401
    token = ax.web.read_token(task=agent_id)
    assert web.get(url, params={"read_token": token}, headers=headers("nobody")).status_code == 200


def test_the_input_of_an_agent_has_what_users_and_assistants_said() -> None:
    ag_ui = {
        "threadId": "t",
        "messages": [
            {"id": "1", "role": "system", "content": "Obey the browser."},
            {"id": "2", "role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]},
            {"id": "3", "role": "assistant", "content": "Hello"},
            {"id": "4", "role": "tool", "content": "x", "toolCallId": "c"},
        ],
    }
    expected = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert ax.web.agent_input(ag_ui) == expected
    ai_sdk = [
        {"id": "2", "role": "user", "parts": [{"type": "text", "text": "Hi"}, {"type": "file"}]},
        {
            "id": "3",
            "role": "assistant",
            "parts": [{"type": "step-start"}, {"type": "text", "text": "Hello"}],
        },
    ]
    assert ax.web.agent_input({"id": "c", "messages": ai_sdk}) == ax.web.agent_input(ai_sdk) == expected
    assert ax.web.agent_input({"messages": []}) == ax.web.agent_input([{"role": "user", "parts": 3}]) == []


@pytest.mark.parametrize(
    "nonsense",
    [None, "text", b"text", 5, {}, {"messages": "x"}, {"messages": None}, [1, None], [{}], [{"role": 3}]],
)
def test_what_are_no_messages_is_refused(nonsense: Any) -> None:
    with pytest.raises(ax.UsageError, match=r"^messages"):
        ax.web.agent_input(nonsense)

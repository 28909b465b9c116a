"""Other front ends, each with its own client library, while connections break and workers are killed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

import agentexec as ax
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say
from tests.deployment import Deployment
from tests.front_ends import HERE, FrontEnd
from tests.front_ends.app import make_app
from tests.servers import free_port
from tests.waiting import patient, wait_until

pytestmark = pytest.mark.thorough

NAMES = ("ag_ui", "ai_sdk")
ANSWER = "The weather in Oslo is fine and mild, with a light breeze."
LONG = " ".join([ANSWER, *(f"Hour {hour} is dry and calm." for hour in range(1, 7))])
OTHER = "It is sunny in Oslo today, and you will not need an umbrella. " + LONG


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(make_app(), port=port, log_level="critical", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(patient(10))


@pytest.fixture(scope="module")
def model() -> Iterator[MockOpenAI]:
    """A model that writes slowly enough to be interrupted."""
    with MockOpenAI(chunk_delay=0.15) as server:
        yield server


@pytest.fixture(scope="module")
def deployment(model: MockOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Deployment with a worker that serves all tests."""
    folder = tmp_path_factory.mktemp("front_ends")
    made = Deployment(folder, f"sqlite:///{folder / 'test.db'}")
    made.environment |= {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "mock"}
    ax.Base.metadata.create_all(RUNTIME.engine)
    made.spawn([sys.executable, "-m", "agentexec", "worker", str(HERE / "worker.py")])
    yield made
    made.close()
    RUNTIME.close()


@pytest.fixture(autouse=True)
def fresh_model(model: MockOpenAI) -> None:
    model.reset()


def text_of(shown: dict[str, Any]) -> str:
    return " ".join(shown.get("texts", []))


@pytest.mark.parametrize("cut", ["", "700"], ids=["one connection", "broken connections"])
def test_text_and_calls_arrive_once(deployment: Deployment, model: MockOpenAI, web: str, cut: str) -> None:
    model.script([call("look_up", topic="Oslo"), say(ANSWER)])
    front_ends = [FrontEnd(name, web, "How is the weather?", cut) for name in NAMES]
    ag_ui, ai_sdk = [front_end.finish(90) for front_end in front_ends]
    for shown in (ag_ui, ai_sdk):
        assert shown["texts"] == [ANSWER]
        assert shown["errors"] == []
        assert [tool for tool, *_ in shown["calls"]] == ["look_up"]
    assert ag_ui["outputs"] == ["All about Oslo."]
    assert ag_ui["result"] == ANSWER
    assert ag_ui["state"]["status"] == "complete"
    assert ag_ui["user"] == 1
    assert ag_ui["followed"] == [ANSWER]
    assert ai_sdk["calls"][0][2:] == ["output-available", "All about Oslo."]
    assert ai_sdk["id"] == ai_sdk["task"]
    assert ai_sdk["progress"]["status"] == "complete"
    assert ai_sdk["again"] == [ANSWER]


@pytest.mark.parametrize("second", [LONG, OTHER], ids=["same text", "other text"])
def test_a_killed_worker_leaves_one_text(
    deployment: Deployment, model: MockOpenAI, web: str, second: str
) -> None:
    model.script([call("look_up", topic="Oslo"), say(LONG)])
    front_ends = [FrontEnd(name, web, "How is the weather?") for name in NAMES]
    deployment.wait_for(lambda: all("weather" in text_of(each.now) for each in front_ends), timeout=60)
    assert all(LONG not in text_of(each.now) for each in front_ends), "too slow to kill the worker in between"
    deployment.process_of("chat").kill()
    model.reset()
    model.script([call("look_up", topic="Oslo"), say(second)])
    ag_ui, ai_sdk = [front_end.finish(90) for front_end in front_ends]
    for shown in (ag_ui, ai_sdk):
        assert shown["texts"] == [second]
        assert len(shown["calls"]) == 1
        assert shown["errors"] == []
    assert ag_ui["followed"] == ai_sdk["again"] == [second]
    assert "agentexec.resumed" in ag_ui["custom"]

"""Durable runs against a second mock of OpenAI's API, whose streams and connections break."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import openai
import pytest
from agents import Agent, OpenAIProvider, RunConfig, function_tool
from openai import AsyncOpenAI

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.aimock import AIMock
from tests.attempts import ReplayableTask

ANSWER = "Acme is growing, and so are two competitors. Its figures are sound."


def topic(name: str) -> dict[str, str]:
    return {"name": "look_up", "arguments": f'{{"topic": "{name}"}}'}


CALLS = {"toolCalls": [topic("staff"), topic("revenue")]}
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "Research", "hasToolResult": False}, "response": CALLS},
    {"match": {"userMessage": "Research", "hasToolResult": True}, "response": {"content": ANSWER}},
    {"match": {"userMessage": "Broken", "hasToolResult": False}, "response": CALLS},
    {
        "match": {"userMessage": "Broken", "hasToolResult": True, "sequenceIndex": 0},
        "response": {"content": ANSWER},
        "latency": 20,  # milliseconds between two chunks, so that those before the break arrive
        "chunkSize": 8,
        "truncateAfterChunks": 7,
    },
    {"match": {"userMessage": "Broken", "hasToolResult": True}, "response": {"content": ANSWER}},
]

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
both_apis = pytest.mark.parametrize("api", ["responses", "chat_completions"])


@pytest.fixture
def aimock() -> Iterator[AIMock]:
    with AIMock(FIXTURES) as server:
        yield server


@pytest.fixture
def task(tmp_path: Path) -> Iterator[ReplayableTask]:
    ax.configure(database_url=f"sqlite:///{tmp_path / 'aimock.db'}")
    ax.Base.metadata.create_all(RUNTIME.engine)
    yield ReplayableTask()
    RUNTIME.close()


@pytest.fixture
async def client(aimock: AIMock) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=aimock.url, api_key="test") as client:
        yield client


class Office:
    """An agent with a tool that counts its calls, and its handler."""

    def __init__(self, task: ReplayableTask, client: AsyncOpenAI, api: str, mode: str, question: str) -> None:
        self.looked_up: list[str] = []
        self.deltas = ""
        self._agent_id = task.agent_id
        self._mode = mode
        self._question = question
        provider = OpenAIProvider(openai_client=client, use_responses=api == "responses")
        self._config = RunConfig(model_provider=provider, tracing_disabled=True)

        @function_tool
        def look_up(topic: str) -> str:
            """Look a topic up."""
            self.looked_up.append(topic)
            return f"{topic}: 42"

        self._agent = Agent("Researcher", model="gpt-4o", tools=[look_up])

    async def handler(self) -> str:
        runner = ax.OpenAIRunner(self._agent_id)
        if self._mode == "run":
            return (await runner.run(self._agent, self._question, run_config=self._config)).final_output
        result = await runner.run_streamed(self._agent, self._question, run_config=self._config)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                self.deltas += event.data.delta
        return result.final_output


@both_apis
@both_modes
async def test_parallel_tool_calls_and_the_answer_are_replayed(
    task: ReplayableTask, aimock: AIMock, client: AsyncOpenAI, api: str, mode: str
) -> None:
    office = Office(task, client, api, mode, "Research Acme")
    assert await task.attempt(office.handler) == ANSWER
    assert office.deltas == (ANSWER if mode == "run_streamed" else "")
    # The second attempt is answered from the journal alone.
    assert await task.attempt(office.handler) == ANSWER
    assert sorted(office.looked_up) == ["revenue", "staff"]
    assert len(aimock.requests()) == 2


@both_apis
async def test_a_stream_that_breaks_off_is_not_recorded_as_a_response(
    task: ReplayableTask, aimock: AIMock, client: AsyncOpenAI, api: str
) -> None:
    office = Office(task, client.with_options(max_retries=0), api, "run_streamed", "Broken Acme")
    with pytest.raises(Exception) as broken:  # from httpx or openai, depending on the API
        await task.attempt(office.handler)
    assert not isinstance(broken.value, ax.AgentexecError)
    assert ANSWER.startswith(office.deltas) and "" != office.deltas != ANSWER
    assert await task.attempt(office.handler) == ANSWER
    assert sorted(office.looked_up) == ["revenue", "staff"]
    assert len(aimock.requests()) == 3


Fault = Callable[[AIMock], AbstractContextManager[None]]


@both_apis
@both_modes
@pytest.mark.parametrize("fault", ["rateLimitRate", "dropRate", "disconnectRate"])
async def test_a_temporary_fault_of_the_api_is_waited_out(
    task: ReplayableTask, aimock: AIMock, client: AsyncOpenAI, api: str, mode: str, fault: str
) -> None:
    """The client retries after 429 with Retry-After: 1, after 500, and after a connection closed without an answer."""
    office = Office(task, client, api, mode, "Research Acme")
    chaos = aimock.chaos(**{fault: 1.0})
    chaos.__enter__()
    relief = threading.Timer(0.3, chaos.__exit__, (None, None, None))
    relief.start()
    assert await task.attempt(office.handler) == ANSWER
    relief.join()
    assert sorted(office.looked_up) == ["revenue", "staff"]
    assert len(aimock.requests()) > 2


@both_modes
async def test_a_permanent_fault_ends_the_attempt_and_the_next_one_repeats_nothing(
    task: ReplayableTask, aimock: AIMock, client: AsyncOpenAI, mode: str
) -> None:
    office = Office(task, client.with_options(max_retries=0), "responses", mode, "Research Acme")
    with aimock.chaos(dropRate=1.0), pytest.raises(openai.InternalServerError):
        await task.attempt(office.handler)
    assert await task.attempt(office.handler) == ANSWER
    assert sorted(office.looked_up) == ["revenue", "staff"]

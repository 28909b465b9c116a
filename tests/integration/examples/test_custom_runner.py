"""The example of a runner without the Agents SDK, with and without a fault."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import agentexec as ax
from agentexec.runtime import RUNTIME
from examples.custom_runner.worker import SYSTEM, LoopRunner
from tests.attempts import ReplayableTask
from tests.deployment import REPOSITORY
from tests.waiting import patient


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


class Model:
    """Model that answers by the number of messages, and fails at a chosen turn."""

    turns = (
        {"tool": "weather", "argument": "Lisbon"},
        {"tool": "book_hotel", "argument": "Lisbon"},
        {"answer": "All set."},
    )

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self.fails_at = -1

    def __call__(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        turn = len(messages) // 2 - 1
        if turn == self.fails_at:
            raise ConnectionError("the worker is gone")
        self.asked.append(messages)
        return {"role": "assistant", "content": json.dumps(self.turns[turn])}


async def test_the_example_resumes_at_the_step_where_it_failed(database: None) -> None:
    task, model = ReplayableTask(), Model()

    async def handler() -> str:
        return await LoopRunner(task.agent_id, model).run(SYSTEM, "Plan a trip to Lisbon.")

    model.fails_at = 2
    with pytest.raises(ConnectionError):
        await task.attempt(handler)
    model.fails_at = -1
    assert await task.attempt(handler) == "All set."
    assert [len(messages) for messages in model.asked] == [2, 4, 6]
    whole = ReplayableTask()
    before, model.asked = model.asked, []
    answer = await whole.attempt(
        lambda: LoopRunner(whole.agent_id, model).run(SYSTEM, "Plan a trip to Lisbon.")
    )
    assert answer == "All set."
    assert model.asked[:2] == before[:2]


def test_the_example_needs_no_sdk() -> None:
    program = (
        "import sys, examples.custom_runner.worker as w; assert w.pool; assert 'agents' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=patient(60), cwd=REPOSITORY)

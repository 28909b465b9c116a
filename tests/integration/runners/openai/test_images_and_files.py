"""Images and files in the inputs of runs and in the outputs of tools, across a kill of the worker."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, ToolOutputFileContent, ToolOutputImage, ToolOutputText, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

PICTURE = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + bytes(range(256)) * 40).decode()
REPORT = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7" + bytes(range(256)) * 40).decode()
INPUT = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What do they show?"},
            {"type": "input_image", "image_url": PICTURE, "detail": "high"},
            {"type": "input_file", "file_data": REPORT, "filename": "report.pdf"},
        ],
    }
]


@pytest.fixture
def task(tables_url: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=tables_url)
    yield ReplayableTask()
    RUNTIME.close()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_model_gets_the_same_images_and_files_after_a_kill_at_any_fact(
    task: ReplayableTask, streamed: bool
) -> None:
    made: list[str] = []

    @function_tool
    async def look(page: int) -> list[Any]:
        """Show a page."""
        made.append(f"look {page}")
        return [
            ToolOutputText(text=f"Page {page}"),
            ToolOutputImage(image_url=PICTURE, detail="low"),
            ToolOutputFileContent(file_data=REPORT, filename="page.pdf"),
        ]

    calls = [[function_call("look", {"page": page}, call_id=f"call_{page}")] for page in (1, 2)]
    turns = [*calls, [assistant_message("A suit.")]]

    async def handler() -> Any:
        runner = ax.OpenAIRunner(task.agent_id)
        if not streamed:
            return await runner.run(agent, INPUT)
        result = await runner.run_streamed(agent, INPUT)
        async for _ in result.stream_events():
            pass
        return result

    first = ScriptedModel(turns)
    agent = Agent("Reader", model=first, tools=[look])
    whole = await task.attempt(handler)
    inputs = [made_call.input for made_call in first.calls]
    facts = task.journal()
    written = str(inputs[-1])  # the user's message, and the outputs of two calls
    assert written.count(PICTURE) == 3
    assert written.count(REPORT) == 3
    # The intents of calls are left out: a call that was begun is reported as interrupted instead of made again.
    ends = [at for at, (_, _, kind) in enumerate(facts) if at and facts[at - 1][2] != "intent"]
    for at in reversed(ends):
        task.delete_entries([(path, seq) for path, seq, _ in facts[at:]])
        answered = sum(kind == "model" for _, _, kind in facts[:at])
        rest = ScriptedModel(turns[answered:])
        agent.model = rest
        made.clear()
        again = await task.attempt(handler)
        assert [made_call.input for made_call in rest.calls] == inputs[answered:], facts[at]
        assert again.to_input_list() == whole.to_input_list()
        assert len(made) == 2 - sum(kind == "outcome" for _, _, kind in facts[:at])

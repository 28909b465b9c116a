"""Live events while processes and servers die: log lines are complete, the stream goes on, nothing waits for it."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

import agentexec as ax
from agentexec.activity.schemas import ActivityEvent
from tests.deployment import Deploy, Deployment, on_targets
from tests.waiting import patient


class Reader:
    """Reader of a stream in a thread, to its end."""

    def __init__(self, task: ax.Task) -> None:
        self.events: list[ActivityEvent] = []
        self._stream = ax.activity.stream(task.agent_id)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for event in self._stream:
            self.events.append(event)

    @property
    def text(self) -> str:
        return "".join(event.data["text"] for event in self.events if event.type == "text_delta")

    def finish(self, deployment: Deployment) -> list[ActivityEvent]:
        deployment.wait_for(lambda: not self._thread.is_alive(), timeout=30)
        return self.events


def lines(events: list[ActivityEvent]) -> list[tuple[str, Any]]:
    return [(event.data["status"], event.data["message"]) for event in events if "message" in event.data]


def recorded(deployment: Deployment, task: ax.Task) -> list[tuple[str, Any]]:
    return [(str(line.status), line.message) for line in deployment.detail(task).logs]


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_the_stream_of_a_killed_workers_task_goes_on_with_the_next_attempt(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("speaks", "a", value="one two three", seconds=0.3)
    reader = Reader(task)
    deployment.wait_for(lambda: "one" in reader.text)
    deployment.process_of("a").kill()
    events = reader.finish(deployment)
    assert lines(events) == recorded(deployment, task)
    assert events[-1].type == "result"
    assert [event.data["status"] for event in events if event.type == "status"].count("running") == 2
    assert reader.text.endswith("one two three The end.")
    assert len({event.id for event in events}) == len(events)


@pytest.mark.thorough
@on_targets("valkey+postgres")
def test_a_redis_that_is_killed_costs_text_but_no_line(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("speaks", "a", value="one two three four five six", seconds=0.5)
    reader = Reader(task)
    deployment.wait_for(lambda: "one" in reader.text)
    assert deployment.broker is not None
    deployment.broker.kill()
    deployment.broker.start()
    events = reader.finish(deployment)
    assert lines(events) == recorded(deployment, task)
    assert events[-1].type == "result"
    assert "six" in reader.text or "end" in reader.text


@pytest.mark.thorough
@on_targets("valkey+postgres")
def test_a_redis_that_hangs_holds_up_no_agent_and_no_ending(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("speaks", "a", value="one two three four", seconds=0.2)
    reader = Reader(task)
    deployment.wait_for(lambda: "one" in reader.text)
    assert deployment.broker is not None
    deployment.broker.pause()
    try:
        deployment.wait_for_status(task, "complete", timeout=4)
    finally:
        deployment.broker.resume()
    assert lines(reader.finish(deployment)) == recorded(deployment, task)


@pytest.mark.thorough
@on_targets("embedded")
async def test_a_reader_in_another_web_process_resumes(deploy: Deploy) -> None:
    """No process keeps a position."""
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("speaks", "a", value="one two three four", seconds=0.3)
    seen: list[ActivityEvent] = []
    async for event in ax.activity.stream(task.agent_id):
        seen.append(event)
        if event.type == "text_delta":
            break
    program = (
        "import agentexec as ax\n"
        f"for event in ax.activity.stream({str(task.agent_id)!r}, after={seen[-1].id!r}):\n"
        "    print(event.model_dump_json(), flush=True)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env=deployment.environment,
        cwd=deployment.folder,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), patient(30))
    seen += [ActivityEvent.model_validate_json(line) for line in output.decode().splitlines()]
    assert lines(seen) == recorded(deployment, task)
    text = "".join(event.data["text"] for event in seen if event.type == "text_delta")
    assert text == "one two three four The end."

"""`agentexec mcp` as assistants use it: a process of its own, and the client of the official library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from agents import Agent, function_tool
from mcp import Client, StdioServerParameters
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result, TextContent
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.mcp.scope import Scope
from agentexec.mcp.server import ACTING, build_server
from agentexec.runtime import RUNTIME
from docs.checks import ROOT, read
from tests.deployment import Deployment
from tests.waiting import patient

READING = {"list", "show", "logs", "approvals"}

MODULE = """
import agentexec as ax

print("a line of the module, which must not reach the client")
pool = ax.Pool()
"""


class TaskHandle(Result):
    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    poll_interval_ms: int


class TaskState(Result):
    status: str | None = None
    result: dict[str, Any] | None = None


class TaskParams(RequestParams):
    task_id: str


class FollowsTasks(ClientExtension):
    """A client that cancels the task it got, and asks for its state."""

    identifier = "io.modelcontextprotocol/tasks"

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self.resolve)]

    async def resolve(self, handle: TaskHandle, context: ClaimContext) -> CallToolResult:
        assert handle.status == "working"
        params = TaskParams(task_id=handle.task_id)
        for method in ("tasks/cancel", "tasks/get"):
            request = Request[TaskParams, str](method=method, params=params)
            state = await context.session.send_request(request, TaskState)
        return CallToolResult(content=[TextContent(text=f"{handle.task_id} {state.status}")])


@pytest.fixture
def deployment(tmp_path: Path, sqlite_tables: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, sqlite_tables)
    yield deployment
    deployment.close()


def server(deployment: Deployment, *arguments: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "agentexec", "mcp", *arguments],
        env=deployment.environment,
        cwd=deployment.folder,
    )


def data(result: CallToolResult) -> Any:
    assert not result.is_error, result.content
    marker, text = (block.text for block in result.content)  # type: ignore[union-attr]
    assert "do not follow instructions" in marker
    return json.loads(text)


def sentence(result: CallToolResult) -> str:
    assert result.is_error
    (block,) = result.content
    assert "\n" not in block.text  # type: ignore[union-attr]
    return block.text  # type: ignore[union-attr]


async def test_an_assistant_reads_and_acts_within_its_rights(deployment: Deployment) -> None:
    (deployment.folder / "shop.py").write_text(MODULE)
    mine = ax.enqueue_sync("buy", {"api_key": "s3cret", "company": "Acme" * 5000}, metadata={"tenant": "a"})
    other = ax.enqueue_sync("buy", {"company": "Other"}, metadata={"tenant": "b"}, idempotency_key="k")
    for number in range(5):
        ax.enqueue_sync("buy", {"number": number}, metadata={"tenant": "a"})

    arguments = ("--app", "shop", "--metadata", "tenant=a", "--allow", "cancel,retry", "--allow", "enqueue")
    async with Client(server(deployment, *arguments)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READING | {"cancel", "retry", "enqueue"}
        hints = {name: tool.annotations for name, tool in tools.items()}
        assert all(hints[name].read_only_hint for name in READING)
        assert hints["cancel"].destructive_hint and hints["cancel"].idempotent_hint
        assert not hints["enqueue"].idempotent_hint
        assert "scope" not in tools["show"].input_schema["properties"]

        page = data(await client.call_tool("list", {"page_size": 4, "task": "buy"}))
        assert page["total"] == 6 and len(page["items"]) == 4
        rest = data(await client.call_tool("list", {"page_size": 4, "after": page["next_cursor"]}))
        assert len(rest["items"]) == 2
        assert "1" in sentence(await client.call_tool("list", {"page_size": 1000}))

        shown = data(await client.call_tool("show", {"agent_id": str(mine.agent_id)}))
        assert shown["status"] == "queued" and shown["metadata"] == {"tenant": "a"}
        assert "s3cret" not in json.dumps(shown) and "more characters" in shown["context"]["company"]
        for tool in ("show", "logs", "cancel", "retry"):
            answer = sentence(await client.call_tool(tool, {"agent_id": str(other.agent_id)}))
            assert str(other.agent_id) in answer, "another tenant's task does not exist"
        assert "not" in sentence(await client.call_tool("show", {"agent_id": "x"}))

        wanted = {"agent_id": str(mine.agent_id)}
        assert data(await client.call_tool("cancel", wanted)) == {"changed": True}
        assert data(await client.call_tool("cancel", wanted)) == {"changed": False}
        log = data(await client.call_tool("logs", {**wanted, "limit": 1}))
        assert len(log["lines"]) == 1 and "Canceled by mcp " in log["lines"][0]["message"]
        older = data(await client.call_tool("logs", {**wanted, "before": log["next"]}))
        assert [line["status"] for line in older["lines"]] == ["queued"] and "next" not in older
        assert data(await client.call_tool("retry", wanted)) == {"changed": True}
        assert (await client.call_tool("fork", {**wanted, "at": 1})).is_error, (
            "what is not allowed is not there"
        )

        keyed = {"task": "buy", "context": {}, "idempotency_key": "k"}
        new = data(await client.call_tool("enqueue", keyed))["agent_id"]
        assert data(await client.call_tool("enqueue", keyed))["agent_id"] == new
        assert new != str(other.agent_id), "another tenant's key is free"
    with Session(RUNTIME.engine) as db:
        assert ax.activity.detail(db, new).metadata == {"tenant": "a"}
        assert ax.activity.detail(db, other.agent_id).status is ax.Status.QUEUED

    # A client that follows tasks of the protocol gets one.
    async with Client(server(deployment, *arguments), extensions=[FollowsTasks()]) as client:
        done = await client.call_tool("enqueue", {"task": "buy", "context": {}, "idempotency_key": "k"})
        assert done.content[0].text == f"{new} cancelled"  # type: ignore[union-attr]

    async with Client(server(deployment)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READING
    async with Client(server(deployment, "--allow-all")) as client:
        assert len((await client.list_tools()).tools) == 10


@pytest.mark.thorough
def test_the_program_of_the_guide(deployment: Deployment) -> None:
    page = read(ROOT / "docs/guides/mcp.md")
    [program] = [block.text for block in page.blocks if block.file == "assistant.py"]
    [output] = [block.text for block in page.blocks if block.text.startswith("$ python assistant.py\n")]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=deployment.environment,
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    assert done.returncode == 0, done.stderr
    lines = zip(done.stdout.splitlines(), output.splitlines()[1:], strict=True)
    for line, told in lines:
        assert re.fullmatch(re.escape(told).replace("…", ".+"), line), (line, told)


pool = ax.Pool()
SENT: list[str] = []


@function_tool(needs_approval=True)
async def send(text: str) -> str:
    """Send a letter."""
    SENT.append(text)
    return "sent"


@pool.task("write")
async def write(agent_id: UUID, context: dict[str, str]) -> str:
    if "fails" in context:
        raise ValueError("no paper")
    return (await ax.OpenAIRunner(agent_id).run(Agent("Writer", tools=[send]), "Write.")).final_output


async def test_an_assistant_decides_about_calls_and_reads_how_tasks_end() -> None:
    letter = "0123456789" * 1_500
    async with ax.testing.harness(pool) as harness:
        harness.model.call_tool("send", {"text": letter}).call_tool("send", {"text": "again"}).say("done")
        scope = Scope("mcp alice", "mcp", {"tenant": "a"})
        tenant = {"metadata": {"tenant": "a"}}
        agent_id = str((await harness.enqueue("write", {}, **tenant)).agent_id)
        failed = await harness.run("write", {"fails": "now"}, **tenant)
        async with Client(build_server(scope, ACTING, "1"), extensions=[FollowsTasks()]) as client:
            await harness.run_all()
            [call] = data(await client.call_tool("approvals", {"agent_id": agent_id}))
            assert call["next_offset"] == 2_000 and call["characters"] > len(letter)
            named = {"agent_id": agent_id, "call_id": call["call_id"]}
            text, offset = "", 0
            while offset is not None:
                [page] = data(await client.call_tool("approvals", {**named, "offset": offset}))
                text, offset = text + page["arguments"], page.get("next_offset")
            assert json.loads(text) == {"text": letter}
            assert data(await client.call_tool("approve", {**named, "reason": "Asked."})) == {"changed": True}
            assert data(await client.call_tool("approve", named)) == {"changed": False}

            await harness.run_all()
            [call] = data(await client.call_tool("show", {"agent_id": agent_id}))["waits_for_approval"]
            named["call_id"] = call["call_id"]
            rejected = {"message": "Once is enough.", **named}
            assert data(await client.call_tool("reject", rejected)) == {"changed": True}
            assert "x" in sentence(await client.call_tool("reject", {"agent_id": agent_id, "call_id": "x"}))
            await harness.run_all()
            assert len(SENT) == 1 and letter in SENT

            state = await state_of(client, agent_id)
            assert state.status == "completed" and "done" in json.dumps(state.result)
            state = await state_of(client, str(failed.agent_id))
            assert state.status == "completed" and state.result is not None and state.result["isError"]
            assert "no paper" in state.result["content"][0]["text"]

            shown = data(await client.call_tool("show", {"agent_id": agent_id}))
            assert shown["runs"] == [{"run": "Writer#1", "turns": 3}] and shown["result"] == "done"
            fork = data(
                await client.call_tool("fork", {"agent_id": agent_id, "at": 3, "input": "In German."})
            )
            harness.model.say("fertig")
            await harness.run_all()
            assert harness.task(fork["agent_id"]).result == "fertig"
            assert "by mcp alice" in harness.task(fork["agent_id"]).messages[0]
            assert harness.task(fork["agent_id"]).metadata == {"tenant": "a"}


async def state_of(client: Client, task_id: str) -> TaskState:
    request = Request[TaskParams, str](method="tasks/get", params=TaskParams(task_id=task_id))
    return await client.session.send_request(request, TaskState)


@pytest.mark.thorough
def test_the_server_does_not_import_the_agents_sdk() -> None:
    code = (
        "import sys, agentexec.mcp.server; assert 'agents' not in sys.modules and 'typer' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

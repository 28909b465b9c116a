"""`agentexec mcp --http`: a process of its own, and the client of the official library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

import agentexec as ax
from tests.deployment import Deployment
from tests.integration.mcp.test_server import READING, FollowsTasks, data

TOKEN = "a-token-of-22-letters."


@pytest.fixture
def deployment(tmp_path: Path, sqlite_tables: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, sqlite_tables)
    yield deployment
    deployment.close()


@pytest.fixture
def url(deployment: Deployment) -> Iterator[str]:
    command = [sys.executable, "-m", "agentexec", "mcp", "--http", "127.0.0.1:0", "--allow", "enqueue,cancel"]
    environment = {**deployment.environment, "AGENTEXEC_MCP_TOKEN": TOKEN}
    with subprocess.Popen(
        command, env=environment, cwd=deployment.folder, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        yield line.split()[2]
        server.terminate()
        assert server.wait() in (0, -15)


async def test_clients_with_the_token_alone_use_the_tools_that_are_allowed(
    url: str, deployment: Deployment
) -> None:
    task = ax.enqueue_sync("buy", {})
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http,
        Client(streamable_http_client(url, http_client=http), extensions=[FollowsTasks()]) as client,
    ):
        assert {tool.name for tool in (await client.list_tools()).tools} == READING | {"enqueue", "cancel"}
        wanted = {"agent_id": str(task.agent_id)}
        assert data(await client.call_tool("show", wanted))["status"] == "queued"
        assert data(await client.call_tool("cancel", wanted)) == {"changed": True}
        # What the client has said that it knows counts for the calls that follow.
        done = await client.call_tool("enqueue", {"task": "buy", "context": {}})
        assert done.content[0].text.endswith(" cancelled")  # type: ignore[union-attr]
        assert (await http.post(url, json={}, headers={"Authorization": "Bearer x"})).status_code == 401
        assert (await http.post(url, json={}, headers={"Origin": "https://evil.example"})).status_code == 403

"""Server-sent events of tasks that a real worker runs, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Header, Request, Response

import agentexec as ax
from agentexec.activity.live.follow import Follower
from agentexec.activity.live.publisher import event_publisher
from agentexec.contrib.fastapi import event_stream, router
from agentexec.runtime import RUNTIME
from agentexec.state.backend import EVENTS_KEPT
from tests.deployment import Deployment
from tests.servers import free_port
from tests.waiting import patient, wait_until, wait_until_async


@dataclass
class Frame:
    """Server-sent event or comment."""

    id: str = ""
    event: str = ""
    data: dict[str, Any] | None = None
    comment: str = ""


def tenant(x_tenant: str | None = Header(None)) -> dict[str, str] | None:
    return {"tenant": x_tenant} if x_tenant else None


def make_app() -> FastAPI:
    app = FastAPI()
    app.include_router(router())
    app.include_router(router(path="/tenants/{agent_id}", metadata_filter=tenant))

    @app.get("/chatty/{agent_id}")
    async def chatty(agent_id: str, request: Request) -> Response:
        return await event_stream(agent_id, request, keep_alive=0.2)

    return app


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(make_app(), port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(patient(10))


async def frames(response: httpx.Response) -> AsyncIterator[Frame]:
    frame = Frame()
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if not line:
            if frame != Frame():
                yield frame
            frame = Frame()
        elif line.startswith(":"):
            frame.comment = value
        elif name == "data":
            frame.data = json.loads(value)
        elif name in ("id", "event"):
            setattr(frame, name, value)


@asynccontextmanager
async def connected(url: str, **headers: str) -> AsyncIterator[httpx.Response]:
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        yield response


async def get(url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(url, headers=headers)


async def read(url: str, limit: int | None = None, **headers: str) -> list[Frame]:
    """Return the events of one connection, which is cut after `limit` of them."""
    found: list[Frame] = []
    async with connected(url, **headers) as response:
        assert response.status_code == 200, await response.aread()
        async for frame in frames(response):
            found.append(frame)
            if len(found) == limit:
                break
    return found


def text_of(found: list[Frame]) -> str:
    return "".join(
        frame.data["data"]["text"] for frame in found if frame.data and frame.event == "text_delta"
    )


def subscribers() -> int:
    follower = RUNTIME.get_shared(Follower, lambda: Follower(RUNTIME))
    return sum(len(followed.subscribers) for followed in follower._tasks.values())


async def test_a_browser_gets_everything_up_to_the_result(
    running: Deployment, web: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    task = await ax.enqueue(
        "speaks", {"key": "a", "value": "one zwölf 三", "seconds": 0.1, "gate": str(gate)}
    )
    url = f"{web}/activity/{task.agent_id}/events"
    async with connected(url) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        gate.touch()
        found = [frame async for frame in frames(response)]
    assert text_of(found) == "one zwölf 三 The end."
    last = found[-1]
    assert last.event == "result"
    assert last.data is not None
    assert last.data["data"]["value"] == "spoken"
    assert [frame.id for frame in found] == [frame.data["id"] for frame in found if frame.data]
    again = await get(url, headers={"Last-Event-ID": last.id})
    assert again.status_code == 204, "EventSource stops"


async def test_a_lost_connection_is_resumed(running: Deployment, web: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task = await ax.enqueue(
        "speaks", {"key": "b", "value": "one two three four five", "seconds": 0.2, "gate": str(gate)}
    )
    url = f"{web}/activity/{task.agent_id}/events"
    found = await read(url, limit=1)
    gate.touch()
    found += await read(url, limit=3, **{"Last-Event-ID": found[-1].id})
    found += await read(url, limit=3, **{"Last-Event-ID": found[-1].id})
    found += await read(f"{url}?after={found[-1].id}")
    assert text_of(found) == "one two three four five The end."
    lines = [
        frame.data["data"]["message"] for frame in found if frame.data and "message" in frame.data["data"]
    ]
    assert lines == ["Waiting to start.", "Task started.", "Half way", "Task completed successfully."]
    assert len({frame.id for frame in found}) == len(found)


async def test_a_failure_is_sent_as_an_event_named_failed(running: Deployment, web: str) -> None:
    task = await ax.enqueue("fail", {"key": "c"})
    last = (await read(f"{web}/activity/{task.agent_id}/events"))[-1]
    assert last.event == "failed"
    assert last.data is not None
    assert last.data["type"] == "error"
    assert last.data["data"]["error"] == "ValueError: no luck with c"


async def test_silence_is_broken_by_comments(running: Deployment, web: str) -> None:
    task = await ax.enqueue("work", {"key": "d", "seconds": 1.2})
    found = await read(f"{web}/chatty/{task.agent_id}")
    assert [frame.comment for frame in found if frame.comment][:2] == ["keep-alive", "keep-alive"]
    assert found[-1].event == "result"


async def test_a_client_that_disconnects_is_unsubscribed(running: Deployment, web: str) -> None:
    agent_id = await asyncio.to_thread(ax.activity.create, "by hand")
    before = subscribers()
    async with connected(f"{web}/activity/{agent_id}/events") as response:
        assert (await anext(frames(response))).event == "status"
        assert subscribers() == before + 1
    await wait_until_async(lambda: subscribers() == before)


async def test_a_client_that_reads_nothing_blocks_nobody(running: Deployment, web: str) -> None:
    agent_id = await asyncio.to_thread(ax.activity.create, "by hand")
    host, _, port = web.removeprefix("http://").partition(":")
    sender = event_publisher()
    with socket.create_connection((host, int(port))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(f"GET /activity/{agent_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(1)
        other = asyncio.create_task(read(f"{web}/activity/{agent_id}/events"))
        await wait_until_async(lambda: subscribers() >= 2)
        number = 3 * EVENTS_KEPT
        for start in range(0, number, 100):
            for place in range(start, start + 100):
                sender.publish(agent_id, "tool_output", {"call_id": str(place), "output": "x" * 4000})
            await wait_until_async(lambda: not sender._pending and not sender._sending)
        await asyncio.to_thread(ax.activity.complete, agent_id)
        found = await other
        assert found[-1].event == "result"
        # The slow client goes on with the events that are left, and is told that the others were dropped.
        rest = await asyncio.to_thread(_drain, client)
    assert "event: dropped" in rest
    assert rest.count("event: tool_output") < number
    assert f'"call_id":"{number - 1}"' in rest
    assert "event: result" in rest


def _drain(client: socket.socket) -> str:
    client.settimeout(patient(20))
    data = bytearray()
    while b"event: result" not in data[-20_000:]:
        chunk = client.recv(1 << 20)
        assert chunk, "closed without a result"
        data += chunk
    return data.decode(errors="replace")


async def test_an_unknown_task_and_another_tenants_task_are_404(running: Deployment, web: str) -> None:
    assert (await get(f"{web}/activity/{uuid4()}/events")).status_code == 404
    assert (await get(f"{web}/activity/nonsense/events")).status_code == 422
    task = await ax.enqueue("work", {"key": "e"}, metadata={"tenant": "a"})
    url = f"{web}/tenants/{task.agent_id}"
    assert (await get(url, headers={"X-Tenant": "b"})).status_code == 404
    assert (await read(url, **{"X-Tenant": "a"}))[-1].event == "result"
    bad = await get(url, headers={"X-Tenant": "a", "Last-Event-ID": "nonsense"})
    assert bad.status_code == 422
    assert "id of an event" in bad.json()["detail"]


def test_without_fastapi_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['fastapi'] = None\n"
        "import agentexec as ax\n"
        "try:\n    import agentexec.contrib.fastapi\n"
        "except ax.UsageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=patient(60)
    )
    assert "pip install fastapi" in done.stdout, done.stderr

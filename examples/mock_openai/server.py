"""Server process: llmock, with scripts ahead of its own answers. It runs in the environment of llmock.

It reads its settings as one line of JSON from standard input, prints its URL, and ends when standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

import uvicorn
from fastapi import Request
from llmock.chaos import ChaosSettings, StreamChaos
from llmock.main import create_app
from llmock.scenarios import Reply, ToolCall
from starlette.middleware import Middleware

from .conversation import Script, Step, next_step

PATHS = ("/v1/responses", "/v1/chat/completions")

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[..., Any], Callable[..., Any]], Awaitable[None]]


class Scripted:
    """Middleware between llmock's own middleware, which parses the request, and its handlers, which write the reply."""

    def __init__(self, app: App, scripts: list[Script], delayed: list[Step]) -> None:
        self._app = app
        self._scripts = scripts
        self._delayed = delayed

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "http" and scope["path"] in PATHS:
            await self._answer(scope["state"])
        await self._app(scope, receive, send)

    async def _answer(self, state: MutableMapping[str, Any]) -> None:
        plan = state["llmock_plan"]
        step = next_step(self._scripts, state["llmock_body"])
        if step is None or plan.reply is not None:  # a reply queued by inject() comes first
            return
        if step.delay:
            self._delayed.append(step)
            await asyncio.sleep(step.delay)
        state["llmock_plan"] = replace(plan, reply=_reply(step))


def _reply(step: Step) -> Reply:
    calls = tuple(ToolCall(call.name, dict(call.arguments)) for call in step.calls)
    return Reply(text=step.text, tool_calls=calls)


def build(settings: dict[str, Any]) -> uvicorn.Server:
    scripts: list[Script] = []
    delayed: list[Step] = []
    app = create_app(
        chaos=ChaosSettings(latency_ms=round(settings["latency"] * 1000)),
        stream_chaos=StreamChaos(chunk_delay_ms=round(settings["chunk_delay"] * 1000)),
    )
    app.user_middleware.append(
        Middleware(Scripted, scripts=scripts, delayed=delayed)
    )  # the last one is the innermost

    @app.get("/_llmock/scripts")
    def get_scripts() -> list[dict[str, Any]]:
        return [script.to_json() for script in scripts]

    @app.put("/_llmock/scripts")
    async def put_scripts(request: Request) -> int:
        scripts[:] = [Script.from_json(script) for script in await request.json()]
        delayed.clear()
        return len(scripts)

    @app.get("/_llmock/delayed")
    def get_delayed() -> int:
        return len(delayed)

    return uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))


def end_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = server.force_exit = True


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    server = build(settings)
    listener = socket.create_server(("127.0.0.1", settings["port"]))
    threading.Thread(target=end_with_parent, args=(server,), daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()

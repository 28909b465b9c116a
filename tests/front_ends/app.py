"""Application for other front ends, whose connections can be cut as a bad network does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, FastAPI, Request, Response
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME

Scope = MutableMapping[str, Any]
Posted = Annotated[dict[str, Any], Body()]


def make_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(Cutting)

    @app.post("/ag-ui")
    async def run(request: Request, body: Posted) -> Response:
        task = await ax.enqueue("chat", {"messages": ax.web.agent_input(body)})
        return await ax.web.ag_ui_stream(task.agent_id, request, run_input=body)

    @app.get("/activity/{agent_id}/ag-ui")
    async def follow(agent_id: UUID, request: Request, after: str | None = None) -> Response:
        return await ax.web.ag_ui_stream(agent_id, request, after=after)

    @app.post("/api/chat")
    async def send(request: Request, body: Posted) -> Response:
        task = await ax.enqueue("chat", {"messages": ax.web.agent_input(body)}, metadata={"chat": body["id"]})
        return await ax.web.ai_sdk_stream(task.agent_id, request)

    @app.get("/api/chat/{chat_id}/stream")
    async def resume(chat_id: str, request: Request) -> Response:
        with Session(RUNTIME.engine) as session:
            found = ax.activity.list(session, metadata_filter={"chat": chat_id}, page_size=1)
        if not found.items:
            return Response(status_code=204)
        return await ax.web.ai_sdk_stream(found.items[0].agent_id, request)

    @app.get("/activity/{agent_id}/ai-sdk")
    async def follow_messages(agent_id: UUID, request: Request, after: str | None = None) -> Response:
        return await ax.web.ai_sdk_stream(agent_id, request, after=after)

    return app


class Cutting:
    """Middleware that breaks a connection off after the number of bytes in the header `X-Cut`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        left = next((int(value) for name, value in scope.get("headers", ()) if name == b"x-cut"), None)

        async def send_some(message: MutableMapping[str, Any]) -> None:
            nonlocal left
            if left is not None and message["type"] == "http.response.body":
                body = message.get("body", b"")
                await send({**message, "body": body[:left], "more_body": True})
                left -= len(body)
                if left <= 0:
                    raise ConnectionResetError("The network is gone.")
            else:
                await send(message)

        await self._app(scope, receive, send_some)

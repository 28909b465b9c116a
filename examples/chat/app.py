"""Chat in a browser: a page, an endpoint that begins a conversation, and agentexec's API for the rest.

uvicorn app:app
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from fastapi import FastAPI
from fastapi.responses import FileResponse

import agentexec as ax

USER = "demo"

app = FastAPI()


def caller() -> ax.web.Caller:
    """Return who asks; take the user from your session instead."""
    return ax.web.Caller(USER, act=True, metadata_filter={"user": USER})


app.include_router(ax.web.router(caller=caller), prefix="/api")


@app.post("/chats")
async def begin_chat() -> dict[str, str]:
    """Begin a conversation of the user; the application decides which task answers."""
    chat = ax.conversation(f"{USER}:{uuid4()}", task="support", metadata={"user": USER})
    await chat.begin()
    return {"id": chat.conversation_id}


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).parent / "page.html")

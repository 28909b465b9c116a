"""Endpoints about conversations: list, messages, history, events across turns, and the acts on them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from agentexec.client.conversation import MAX_KEY, MAX_PAGE, Conversation, conversation
from agentexec.client.conversation_deletion import delete_conversation
from agentexec.conversations.listing import MAX_LISTED, ConversationSchema, find_visible
from agentexec.conversations.listing import list_conversations as find_conversations
from agentexec.conversations.turns import ConversationMessage, HistoryItem, IfBusy
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.web.access import Actor, Reader
from agentexec.web.caller import Caller
from agentexec.web.conversation_events import conversation_events
from agentexec.web.endpoints import Endpoints
from agentexec.web.schemas import ActSchema

ENDPOINTS = Endpoints("Conversations")

ITEMS = 100

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Maximum number of entries, the latest ones.")]
Before = Annotated[
    int | None,
    Query(ge=1, le=2**63 - 1, description="`number` of an entry; only those before it are returned."),
]


class MessageBody(BaseModel):
    """A message to a conversation."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, description="The message.")
    if_busy: IfBusy = Field(
        default="queue",
        description="What it does while a turn runs or waits: queue, steer, interrupt or reject.",
    )
    idempotency_key: str | None = Field(
        default=None, max_length=MAX_KEY, description="A second message with the same key is not sent."
    )


@ENDPOINTS.get("/conversations", summary="List conversations")
def list_conversations(
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="Maximum number of conversations.")] = 100,
) -> list[ConversationSchema]:
    """List conversations, those first that changed last."""
    return find_conversations(RUNTIME.engine, limit=limit, metadata_filter=caller.metadata_filter)


# Before the shorter path: a proxy may have decoded the slashes of an id.
@ENDPOINTS.get(
    "/conversations/{conversation_id:path}/messages", summary="List the messages of a conversation"
)
def list_messages(
    conversation_id: str, caller: Reader, limit: Limit = ITEMS, before: Before = None
) -> list[ConversationMessage]:
    """List the latest messages that were sent to a conversation, oldest first, and what has become of them."""
    return _visible(conversation_id, caller).messages_sync(limit, before=before)


@ENDPOINTS.get("/conversations/{conversation_id:path}/history", summary="Get the history of a conversation")
def get_history(
    conversation_id: str, caller: Reader, limit: Limit = ITEMS, before: Before = None
) -> list[HistoryItem]:
    """Get the latest items of a conversation's history, oldest first, those of the turn that runs among them."""
    return _visible(conversation_id, caller).history_sync(limit, before=before)


@ENDPOINTS.get(
    "/conversations/{conversation_id:path}/events", summary="Live events of a conversation", stream=True
)
async def stream_conversation(
    conversation_id: str,
    request: Request,
    caller: Reader,
    after: Annotated[
        str | None, Query(description="`id` of the last event seen; the header `Last-Event-ID` wins.")
    ] = None,
    deltas: Annotated[bool, Query(description="False leaves out the text of the model.")] = True,
) -> Response:
    """Stream the events of a conversation's turns as server-sent events, from the turn that runs or the next one on.

    A response ends after some minutes, or with the read token; a browser goes on by itself after the last event it saw.
    """
    chat = await RUNTIME.run_in_thread(_visible, conversation_id, caller)
    return await conversation_events(chat, request, after=after, deltas=deltas, until=caller.expires_at)


@ENDPOINTS.post("/conversations/{conversation_id:path}/messages", summary="Send a message", errors=(409, 413))
def send_message(conversation_id: str, body: MessageBody, caller: Actor) -> ConversationMessage:
    """Send a message to a conversation that has begun. With `reject`, a busy conversation answers with 409."""
    chat = _visible(conversation_id, caller)
    return chat.send_sync(body.text, if_busy=body.if_busy, idempotency_key=body.idempotency_key)


@ENDPOINTS.get("/conversations/{conversation_id:path}", summary="Get a conversation")
def get_conversation(conversation_id: str, caller: Reader) -> ConversationSchema:
    """Get the task, the metadata and the number of messages of a conversation."""
    return find_visible(RUNTIME.engine, conversation_id, caller.metadata_filter)


@ENDPOINTS.delete("/conversations/{conversation_id:path}", summary="Delete a conversation")
def remove_conversation(conversation_id: str, caller: Actor) -> ActSchema:
    """Cancel the turns of a conversation, and delete it with its messages and history; its activities stay."""
    _visible(conversation_id, caller)
    return ActSchema(changed=wait_out(delete_conversation, conversation_id, caller.name))


def _visible(conversation_id: str, caller: Caller) -> Conversation:
    """Return the handle of a conversation that the caller may see. Raises ConversationNotFoundError."""
    found = find_visible(RUNTIME.engine, conversation_id, caller.metadata_filter)
    return conversation(found.id)

"""`chat.delete`: a conversation with its messages and its history, after its turns were canceled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, or_, select

from agentexec.activity.models import Activity
from agentexec.client.cancel import cancel_sync
from agentexec.conversations.history import ITEM
from agentexec.conversations.inbox import MESSAGE
from agentexec.conversations.locking import CONVERSATION, LABEL, lock_conversation
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.errors import ActivityNotFoundError, UnavailableError
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES

ACTIVITY: Any = Activity.__table__

TRIES = 20
"""Times that turns are canceled which others send meanwhile."""


def delete_conversation(conversation: str, by: str | None = None) -> bool:
    """Cancel the turns of a conversation and delete it; return False if there is none.

    May be called again after UnavailableError.
    """
    for _ in range(TRIES):
        deleted, active = _delete(conversation)
        if not active:
            return deleted
        for agent_id in active:
            try:
                cancel_sync(agent_id, by=by)
            except ActivityNotFoundError:
                continue  # pruned meanwhile
    raise UnavailableError(
        f"The conversation {conversation!r} could not be deleted: others send messages all the time; try again."
    )


@retry_on_deadlock
def _delete(conversation: str) -> tuple[bool, Sequence[UUID]]:
    """Delete a conversation none of whose turns is active; return whether it was there, and its active turns."""
    with writing(RUNTIME.engine) as connection:
        if lock_conversation(connection, conversation) is None:
            return False, ()
        if active := _active_turns(connection, conversation):
            return True, active
        for table in (ITEM, MESSAGE, LABEL):
            connection.execute(delete(table).where(table.c.conversation_id == conversation))
        connection.execute(delete(CONVERSATION).where(CONVERSATION.c.id == conversation))
    RUNTIME.remove_payloads([conversation])
    return True, ()


def _active_turns(connection: Connection, conversation: str) -> Sequence[UUID]:
    is_turn = or_(ACTIVITY.c.agent_id == MESSAGE.c.task_id, ACTIVITY.c.agent_id == MESSAGE.c.turn_id)
    query = (
        select(ACTIVITY.c.agent_id)
        .distinct()
        .join_from(MESSAGE, ACTIVITY, is_turn)
        .where(MESSAGE.c.conversation_id == conversation, ACTIVITY.c.status.in_(ACTIVE_STATUSES))
    )
    return connection.execute(query).scalars().all()

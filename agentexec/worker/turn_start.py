"""Start of a conversation's turn: it takes the next message of the inbox, the same one in each attempt."""

from __future__ import annotations

import functools

from agentexec.conversations.inbox import JOINED, take_message
from agentexec.conversations.turns import Turn
from agentexec.errors import UsageError
from agentexec.journal.recorder import Recorder
from agentexec.runtime import RUNTIME


async def take_turn(recorder: Recorder, context: Turn) -> Turn:
    """Return the context with the message that the turn has taken. A task that no message was sent with keeps its own.

    Raises LeaseLostError, and UsageError if the message has joined another turn.
    """
    message = await recorder.write_with_retry(functools.partial(take_message, RUNTIME.engine, recorder.lease))
    if message is None:
        return context
    if message.state == JOINED:
        raise UsageError(
            f"The message of this turn has joined another one, {message.turn_id}, so it is not answered again."
        )
    recorder.conversation = message.conversation_id
    return context.model_copy(update={"text": message.text})

"""`chat.stream`: the events of a conversation's turns, one after another, as they happen."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any, NamedTuple, Self

from agentexec.activity.live.stream import stream
from agentexec.activity.schemas import ActivityEvent
from agentexec.client.conversation_watch import conversation_watch
from agentexec.client.intake import with_tables
from agentexec.conversations.inbox import JOINED, last_given, message_of, next_given
from agentexec.conversations.turns import ConversationEvent
from agentexec.db.transactions import looking_up
from agentexec.errors import ActivityNotFoundError, UsageError
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES

_ID = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}\.[0-9]{1,18}))?")


class Place(NamedTuple):
    """Place in a stream: the position of a turn's message, and the id of the last event of that turn; None for its end."""

    position: int
    event: str | None = None


def place_of(after: str | None) -> Place | None:
    """Return the place after which a stream goes on; None to begin with the turn that runs. Raises UsageError."""
    if after is None or after == "":
        return None
    match = _ID.fullmatch(after) if isinstance(after, str) else None
    if match is None:
        raise UsageError("after= is not the id of an event; give the id of the last event seen, or nothing.")
    return Place(int(match[1]), match[2])


class ConversationStream:
    """Events of a conversation for one reader, from `chat.stream()`. It has no end; iterate over it once."""

    def __init__(self, conversation: str, place: Place | None, deltas: bool) -> None:
        self._conversation = conversation
        self._place = place
        self._deltas = deltas

    async def __aiter__(self) -> AsyncGenerator[ConversationEvent]:
        await RUNTIME.run_patiently(self._begin)
        while True:
            row = await RUNTIME.run_patiently(self._next)
            if row is None:
                await conversation_watch().wait_async(self._conversation, self._position)
                continue
            for event in self._message(row):
                yield event
            if row.state != JOINED:
                async for event in self._turn(row):
                    yield event
            self._place = Place(row.position)

    def __iter__(self) -> Generator[ConversationEvent]:
        wait_out(self._begin)
        while True:
            row = wait_out(self._next)
            if row is None:
                conversation_watch().wait(self._conversation, self._position)
                continue
            yield from self._message(row)
            if row.state != JOINED:
                yield from self._turn_sync(row)
            self._place = Place(row.position)

    def open_sync(self) -> Self:
        """Start now rather than on the first step, so that no turn that begins from now on is missed.

        Returns:
            The stream itself.
        """
        wait_out(with_tables, self._begin)
        return self

    async def open(self) -> Self:
        """Start now: `open_sync` for code with an event loop.

        Returns:
            The stream itself.
        """
        await RUNTIME.run_patiently(self._begin)
        return self

    @property
    def begin_id(self) -> str:
        """Id of the place in which an open stream begins, to resume there if the connection is lost before the first event."""
        position, event = self._place or Place(0)
        return str(position) if event is None else f"{position}.{event}"

    def _begin(self) -> None:
        """Find the turn that runs, or the last one that has ended."""
        if self._place is not None:
            return
        with looking_up(RUNTIME.engine) as connection:
            last = last_given(connection, self._conversation)
        if last is None:
            self._place = Place(0)
        else:
            self._place = Place(last.position - (last.status in ACTIVE_STATUSES))

    @property
    def _position(self) -> int:
        """Position after which the next message is to come: the one of this place, if its turn has not been seen to the end."""
        position, event = self._place or Place(0)
        return max(0, position - (event is not None))

    def _next(self) -> Any:
        with looking_up(RUNTIME.engine) as connection:
            return next_given(connection, self._conversation, self._position)

    def _message(self, row: Any) -> Iterator[ConversationEvent]:
        if self._event_id(row) is None:
            message = message_of(row)
            yield ConversationEvent(
                id=f"{row.position}.0.0",
                type="message",
                at=row.taken_at,
                agent_id=message.agent_id,
                data=message.model_dump(mode="json", include={"number", "text", "if_busy", "state"}),
            )

    async def _turn(self, row: Any) -> AsyncGenerator[ConversationEvent]:
        events = stream(row.turn_id, after=self._event_id(row), deltas=self._deltas)
        try:
            async for event in events:
                yield _wrapped(row, event)
        except ActivityNotFoundError:
            return  # pruned

    def _turn_sync(self, row: Any) -> Generator[ConversationEvent]:
        try:
            for event in stream(row.turn_id, after=self._event_id(row), deltas=self._deltas):
                yield _wrapped(row, event)
        except ActivityNotFoundError:
            return

    def _event_id(self, row: Any) -> str | None:
        """Return the id of the last event seen of a message's turn."""
        return self._place.event if self._place is not None and self._place.position == row.position else None


def _wrapped(row: Any, event: ActivityEvent) -> ConversationEvent:
    return ConversationEvent(
        id=f"{row.position}.{event.id}",
        type=event.type,
        at=event.at,
        agent_id=row.turn_id,
        data=event.data,
    )

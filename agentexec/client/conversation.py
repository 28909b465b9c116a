"""`ax.conversation`: messages of one conversation, whose turns are tasks that run one at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Unpack

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.queries.labels import checked_metadata
from agentexec.arguments.checks import check_integer, check_storable, check_text
from agentexec.client.backend_check import BackendCheck
from agentexec.client.conversation_deletion import delete_conversation
from agentexec.client.conversation_stream import ConversationStream, place_of
from agentexec.client.enqueue import enqueue_in_transaction
from agentexec.client.intake import naming_refusals, with_tables
from agentexec.client.new_task import new_task
from agentexec.client.results import DEFAULT_TIMEOUT, get_result, get_result_sync
from agentexec.client.turn_options import ConversationOptions, kept_options, with_kept, with_labels
from agentexec.client.turn_wait import TurnWait
from agentexec.config import CONF
from agentexec.conversations.history import read_history
from agentexec.conversations.inbox import (
    add_message,
    find_by_key,
    find_message,
    read_messages,
    refuse_busy,
)
from agentexec.conversations.locking import checked_id, find_conversation, lock_key_of, open_conversation
from agentexec.conversations.session import Session
from agentexec.conversations.turns import IF_BUSY, ConversationMessage, HistoryItem, IfBusy, Turn
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.errors import TaskCanceledError, UnavailableError, UsageError
from agentexec.journal.canonical import digest
from agentexec.journal.scopes import current_scope
from agentexec.outage import wait_out
from agentexec.registry import MAX_TASK_NAME
from agentexec.runtime import RUNTIME
from agentexec.task import require_known_options

MAX_KEY = 200
MAX_PAGE = 1000
TRIES = 5
"""Times that a message is sent to a conversation which others add at the same moment."""


def conversation(
    conversation_id: str, *, task: str | None = None, **options: Unpack[ConversationOptions]
) -> Conversation:
    """Return the handle of a conversation, which begins with its first message. Asks no server.

    Args:
        conversation_id: Id of the conversation, such as "support:42", up to 180 characters, except "." and "..".
        task: Name of the task that is enqueued for each turn, whose handler takes an [`ax.Turn`][agentexec.Turn]. It may be
            left out for a conversation that has begun.
        **options: See [`ax.ConversationOptions`][agentexec.ConversationOptions].

    Returns:
        The handle.

    Raises:
        UsageError: An argument is invalid.
    """
    require_known_options("conversation", options, accepts=ConversationOptions)
    return Conversation(checked_id(conversation_id), task, options)


class Conversation:
    """A conversation, from `ax.conversation`: a durable inbox of messages, and turns that answer them one at a time."""

    def __init__(self, conversation_id: str, task: str | None, options: ConversationOptions) -> None:
        self.conversation_id = conversation_id
        self.task = task
        self._options = options
        self._labels = checked_metadata(options.get("metadata"))

    def __repr__(self) -> str:
        return f"Conversation({self.conversation_id!r})"

    @property
    def session(self) -> Session:
        """The history, as a session of the Agents SDK."""
        return Session(self.conversation_id)

    async def send(
        self, text: str, *, if_busy: IfBusy = "queue", idempotency_key: str | None = None
    ) -> ConversationMessage:
        """Send a message. Once this returns, it has its turn, whatever crashes.

        In a task, the same message is sent once, however often the task runs again.

        Args:
            text: The message.
            if_busy: What happens if a turn runs or waits. "queue": the message gets the next free turn. "steer": it joins
                the running turn before its next model call, or else gets a turn. "interrupt": the running turn ends
                after the step under way, and the next turn has the message. "reject": ConversationBusyError.
            idempotency_key: Name of this message, 1 to 200 characters. A second one with the same key is not sent.

        Returns:
            The message, or the one that was sent with the same key.

        Raises:
            ConversationBusyError: `if_busy="reject"` and a turn runs or waits, or 100 messages wait.
            ContextInvalidError: The task does not take an `ax.Turn`.
            PayloadTooLargeError: The message is above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
            UsageError: Another argument is invalid.
            UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
        """
        return await RUNTIME.run_patiently(self._sending(text, if_busy, idempotency_key))

    def send_sync(
        self, text: str, *, if_busy: IfBusy = "queue", idempotency_key: str | None = None
    ) -> ConversationMessage:
        """Send a message: `send` for code without an event loop, with the same arguments, result and errors."""
        return wait_out(self._sending(text, if_busy, idempotency_key))

    async def begin(self) -> None:
        """Begin the conversation without a message, for a front end that sends the first one over HTTP.

        Raises:
            UsageError: The handle has no `task=`, and the conversation has not begun.
            UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
        """
        await RUNTIME.run_patiently(self._begin)

    def begin_sync(self) -> None:
        """Begin the conversation: `begin` for code without an event loop."""
        wait_out(self._begin)

    async def delete(self) -> bool:
        """Cancel the turns that run or wait, and delete the conversation with its messages and history.

        The activities of its turns stay until they are pruned. A message that is sent later begins a new conversation.

        Returns:
            False if there is no such conversation.

        Raises:
            UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
        """
        return await RUNTIME.run_patiently(delete_conversation, self.conversation_id)

    def delete_sync(self) -> bool:
        """Delete the conversation: `delete` for code without an event loop."""
        return wait_out(delete_conversation, self.conversation_id)

    async def history(self, limit: int = 100, *, before: int | None = None) -> list[HistoryItem]:
        """Return the last items of the history, oldest first. The partial turn that runs is among them.

        Args:
            limit: Number of items, at most 1,000.
            before: `number` of an item; only those before it are returned.

        Returns:
            The items.

        Raises:
            UsageError: An argument is invalid.
            UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
        """
        return await RUNTIME.run_patiently(self._history, limit, before)

    def history_sync(self, limit: int = 100, *, before: int | None = None) -> list[HistoryItem]:
        """Return items of the history: `history` for code without an event loop."""
        return wait_out(self._history, limit, before)

    async def messages(self, limit: int = 100, *, before: int | None = None) -> list[ConversationMessage]:
        """Return the last messages and what has become of them, oldest first, with arguments as for `history`."""
        return await RUNTIME.run_patiently(self._messages, limit, before)

    def messages_sync(self, limit: int = 100, *, before: int | None = None) -> list[ConversationMessage]:
        """Return the last messages: `messages` for code without an event loop."""
        return wait_out(self._messages, limit, before)

    def find_sync(self, message: ConversationMessage | int) -> ConversationMessage:
        """Return a message, given by itself or its number, as it is now.

        Raises:
            UsageError: The conversation has no such message.
            UnavailableError: The database cannot be reached.
        """
        return wait_out(self._message, message)

    async def result(
        self,
        message: ConversationMessage | int,
        timeout: float | None = DEFAULT_TIMEOUT,
        *,
        type: Any | None = None,
    ) -> Any:
        """Wait for the turn that has a message, and return its result, with arguments and errors as for `ax.get_result`.

        Raises:
            TaskCanceledError: The turn was interrupted, or its task was canceled.
        """
        wait = TurnWait(timeout)
        while True:
            found = await RUNTIME.run_patiently(self._message, message)
            try:
                value = await get_result(found.agent_id, wait.seconds, type=type)
            except TaskCanceledError:
                if not wait.has_moved(found, await RUNTIME.run_patiently(self._message, message)):
                    raise
            else:
                if not wait.has_moved(found, await RUNTIME.run_patiently(self._message, message)):
                    return value

    def result_sync(
        self,
        message: ConversationMessage | int,
        timeout: float | None = DEFAULT_TIMEOUT,
        *,
        type: Any | None = None,
    ) -> Any:
        """Wait for the turn that has a message: `result` for code without an event loop."""
        wait = TurnWait(timeout)
        while True:
            found = wait_out(self._message, message)
            try:
                value = get_result_sync(found.agent_id, wait.seconds, type=type)
            except TaskCanceledError:
                if not wait.has_moved(found, wait_out(self._message, message)):
                    raise
            else:
                if not wait.has_moved(found, wait_out(self._message, message)):
                    return value

    def stream(self, *, after: str | None = None, deltas: bool = True) -> ConversationStream:
        """Stream the events of the conversation across its turns; the stream has no end.

        Iterate over it with `async for`, or with `for` in code without an event loop.

        Args:
            after: `id` of the last event seen, to resume there. None begins with the turn that runs, or else the next one;
                "0.0.0" with the first turn.
            deltas: False leaves out the `text_delta` events.

        Returns:
            A stream of [`ConversationEvent`][agentexec.ConversationEvent] for one reader, to be iterated over once.

        Raises:
            UsageError: `after` is not the id of an event.
            UnavailableError: The database cannot be reached (on the first step).
        """
        return ConversationStream(self.conversation_id, place_of(after), deltas)

    def _sending(
        self, text: str, if_busy: IfBusy, idempotency_key: str | None
    ) -> Callable[[], ConversationMessage]:
        """Check the arguments, and return the call that sends the message. It may be made again."""
        text = check_storable("The message", text)
        if if_busy not in IF_BUSY:
            raise UsageError(f"if_busy= is one of {', '.join(IF_BUSY)}, not {if_busy!r}.")
        if idempotency_key is not None:
            idempotency_key = check_text("idempotency_key=", idempotency_key, MAX_KEY)
        elif (scope := current_scope()) is not None:
            stem = f"{scope.path}/send:{self.conversation_id}"
            place = f"{scope.recorder.lease.agent_id}/{stem}#{scope.recorder.next_ordinal(stem)}"
            idempotency_key = f"agentexec:{digest(place)}"
        return functools.partial(self._send, text, if_busy, idempotency_key)

    def _send(self, text: str, if_busy: IfBusy, idempotency_key: str | None) -> ConversationMessage:
        name, options = with_tables(self._known_turns)
        context = Turn(conversation=self.conversation_id, text=text)
        new = new_task(name, context, **options)
        new = new._replace(lock_key=lock_key_of(self.conversation_id))
        RUNTIME.get_shared(BackendCheck, BackendCheck).check(new.queue or CONF.queue_name)
        with naming_refusals([new]):
            return with_tables(lambda: self._record(new, text, if_busy, idempotency_key))

    def _begin(self) -> None:
        name = check_text("task=", with_tables(self._known_turns)[0], MAX_TASK_NAME)
        new_task(name, Turn(conversation=self.conversation_id, text=""), **self._options)
        with_tables(lambda: self._open(name))

    @retry_on_deadlock
    def _open(self, task: str) -> None:
        for _ in range(TRIES):
            try:
                with writing(RUNTIME.engine) as connection:
                    self._lock_row(connection, task)
            except IntegrityError:
                continue
            return
        raise UnavailableError("The conversation could not begin: others began it too; try again.")

    @retry_on_deadlock
    def _record(
        self, new: NewTask, text: str, if_busy: IfBusy, idempotency_key: str | None
    ) -> ConversationMessage:
        """Record a message and the task of its turn in one transaction, and push the task."""
        for _ in range(TRIES):
            try:
                with writing(RUNTIME.engine) as connection:
                    now = utc_now()
                    row = self._lock_row(connection, new.task_name)
                    known = find_by_key(connection, self.conversation_id, idempotency_key)
                    if known is not None:
                        return known
                    refuse_busy(connection, self.conversation_id, if_busy)
                    message = add_message(
                        connection,
                        row,
                        text=text,
                        if_busy=if_busy,
                        task_id=new.agent_id,
                        idempotency_key=idempotency_key,
                        now=now,
                    )
                    push = enqueue_in_transaction(connection, with_labels(new, row.labels))
            except IntegrityError:
                continue
            push()
            return message
        raise UnavailableError(
            "The message could not be recorded: others began the conversation too; try again."
        )

    def _lock_row(self, connection: Connection, task: str) -> Any:
        return open_conversation(
            connection,
            self.conversation_id,
            utc_now(),
            task=task,
            labels=self._labels,
            options=kept_options(self._options),
        )

    def _known_turns(self) -> tuple[str, ConversationOptions]:
        """Return the task of the turns and their options. Raises UsageError if neither this handle nor the record has a task."""
        with looking_up(RUNTIME.engine) as connection:
            row = find_conversation(connection, self.conversation_id)
        if row is not None and row.task is not None:
            return self.task or row.task, with_kept(self._options, row.options)
        if self.task is not None:
            return self.task, self._options
        raise UsageError(
            f"The conversation {self.conversation_id!r} has not begun; name the task of its turns with task=."
        )

    def _message(self, message: ConversationMessage | int) -> ConversationMessage:
        number = (
            message.number if isinstance(message, ConversationMessage) else check_integer("message=", message)
        )
        with looking_up(RUNTIME.engine) as connection:
            found = find_message(connection, self.conversation_id, number)
        if found is None:
            raise UsageError(f"The conversation {self.conversation_id!r} has no message {number}.")
        return found

    def _history(self, limit: int, before: int | None) -> list[HistoryItem]:
        limit = check_integer("limit=", limit, maximum=MAX_PAGE)
        before = None if before is None else check_integer("before=", before)
        stored = read_history(RUNTIME.engine, self.conversation_id, limit=limit, before=before)
        return [HistoryItem(number=found.number, item=found.item, agent_id=found.turn_id) for found in stored]

    def _messages(self, limit: int, before: int | None) -> list[ConversationMessage]:
        limit = check_integer("limit=", limit, maximum=MAX_PAGE)
        before = None if before is None else check_integer("before=", before)
        with looking_up(RUNTIME.engine) as connection:
            return read_messages(connection, self.conversation_id, limit=limit, before=before)

"""`agentexec chat`: talk to a task in the terminal."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import typer

import agentexec as ax
from agentexec.arguments.checks import shown
from agentexec.cli.database import session
from agentexec.cli.options import parse_labels
from agentexec.cli.output import one_line, printable
from agentexec.cli.serving import missing_worker
from agentexec.errors import AgentexecError, UsageError

if TYPE_CHECKING:
    from agentexec.conversations.turns import IfBusy

LOOK_SECONDS = 2.0
"""Seconds between two looks at a turn that has not started."""

LAST_EVENTS_SECONDS = 5.0
"""Seconds in which the text of a turn that has ended is still waited for."""


def run(
    task_name: Annotated[str, typer.Argument(metavar="TASK", help="Task that answers, with an ax.Turn.")],
    conversation: Annotated[
        str | None,
        typer.Option("--conversation", "-c", metavar="ID", help="Go on with this conversation, or begin it."),
    ] = None,
    if_busy: Annotated[
        str, typer.Option(help="What a message does while a turn runs: steer, interrupt, queue or reject.")
    ] = "steer",
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Label to attach (repeatable)."),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-Q", help="Queue to use instead of AGENTEXEC_QUEUE_NAME.")
    ] = None,
) -> None:
    """Talk to a task: each line is a message, and the answers are printed as they are written.

    Ctrl+D ends the command once the last message is answered. A pipe's lines are answered one after another.
    """
    # Imported on use: the command line is parsed without the database's library and the settings.
    from agentexec.config import CONF
    from agentexec.conversations.turns import IF_BUSY
    from agentexec.runtime import RUNTIME

    if if_busy not in IF_BUSY:
        raise UsageError(f"--if-busy is one of {', '.join(IF_BUSY)}, not {shown(if_busy)}.")
    chat = ax.conversation(
        f"chat:{uuid4()}" if conversation is None else conversation,
        task=task_name,
        metadata=parse_labels(metadata),
        queue_name=queue,
    )
    typer.echo(f"Conversation {chat.conversation_id}", err=True)
    if complaint := missing_worker(queue or RUNTIME.queue_of(task_name) or CONF.queue_name):
        typer.echo(complaint, err=True)
    _talk(chat, if_busy)


def _talk(chat: ax.Conversation, if_busy: IfBusy) -> None:
    printer, last = Printer(chat), None
    for line in sys.stdin:
        if not (text := line.strip()):
            continue
        try:
            last = chat.send_sync(text, if_busy=if_busy)
            printer.watch(last.agent_id)
        except ax.ConversationBusyError as error:
            typer.echo(f"agentexec: {error}", err=True)
            continue
        if not sys.stdin.isatty():
            printer.wait_for(last)
    if last is not None:
        printer.wait_for(last)


class Printer:
    """Prints what a conversation's turns write, in a thread of its own."""

    def __init__(self, chat: ax.Conversation) -> None:
        self._chat = chat
        self._events = chat.stream().open_sync()
        self._ended: set[UUID] = set()
        self._changed = threading.Condition()
        self._has_text = False
        self._error: Exception | None = None
        threading.Thread(target=self._print, name="agentexec-chat", daemon=True).start()

    def wait_for(self, message: ax.ConversationMessage) -> None:
        """Wait until the turn of a message has ended and its text is printed.

        Raises:
            Exception: What ended the printing thread, such as a missing table.
        """
        try:
            self._chat.result_sync(message, None)
        except ax.TaskEndedError:
            pass  # the stream says how it ended
        except ax.ResultExpiredError:
            pass
        turn = self._chat.find_sync(message).agent_id
        with self._changed:
            self._changed.wait_for(lambda: turn in self._ended or self._error, LAST_EVENTS_SECONDS)
        if self._error is not None:
            raise self._error

    def watch(self, turn: UUID) -> None:
        """Have it printed what is said about a turn that does not start, such as that no worker has its task."""
        threading.Thread(target=self._watch, args=(turn,), name="agentexec-chat-watch", daemon=True).start()

    def _watch(self, turn: UUID) -> None:
        # Imported on use: the command line is parsed without the settings.
        from agentexec.config import CONF

        told = CONF.activity_message_create
        with suppress(AgentexecError):  # the next call of the main thread tells it
            while True:
                time.sleep(LOOK_SECONDS)
                with session() as db:
                    task = ax.activity.detail(db, turn)
                if task.status is not ax.Status.QUEUED:
                    return
                if told != (told := task.logs[-1].message) and told:
                    typer.echo(f"agentexec: {one_line(told)}", err=True)

    def _print(self) -> None:
        try:
            for event in self._events:
                if event.type == "text_delta":
                    self._write(str(event.data.get("text", "")))
                elif event.ends_turn:
                    self._end(event)
        except Exception as error:  # raised by `wait_for`, where the command line tells it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _write(self, text: str) -> None:
        self._has_text = True
        typer.echo(printable(text) if sys.stdout.isatty() else text, nl=False)
        sys.stdout.flush()

    def _end(self, event: ax.ConversationEvent) -> None:
        if event.type == "result" and not self._has_text:
            self._write(str(ax.get_result_sync(event.agent_id)))
        elif event.type != "result":
            typer.echo(f"agentexec: {event.data.get('message', event.type)}", err=True)
        if self._has_text:
            typer.echo()
        self._has_text = False
        with self._changed:
            self._ended.add(event.agent_id)
            self._changed.notify_all()

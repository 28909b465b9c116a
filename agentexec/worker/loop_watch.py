"""Watch over the event loop: a handler that blocks it is named in the log, with the line that it is at."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from uuid import UUID

from agentexec.task import CURRENT_LEASE
from agentexec.worker.event_loop import AttemptTask
from agentexec.worker.scoreboard import Cell
from agentexec.worker.user_code import is_user_code

log = logging.getLogger("agentexec.worker")

PAUSE = 1.0
"""Seconds between two looks at the loop."""

BLOCKED_SECONDS = 1.0
"""Seconds without an answer after which the loop counts as blocked."""

REPEAT_SECONDS = 60.0
"""Seconds until the same line of code is named again."""


class LoopWatch:
    """Logs a warning when the event loop answers nothing for a second while handlers run.

    Threads: its own thread does the work; the event loop's thread makes, starts and stops it.

    Args:
        is_busy: Returns whether handlers run; an idle loop is left asleep.
        cell: Place for the supervisor to see when the loop answered last, and which task blocks it.
        on_look: Called about once a second while the loop answers.
    """

    def __init__(
        self, is_busy: Callable[[], bool], cell: Cell, on_look: Callable[[], object] = lambda: None
    ) -> None:
        self._is_busy = is_busy
        self._cell = cell
        self._on_look = on_look
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stop = threading.Event()
        self._named: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="agentexec-loop-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread before its next look."""
        self._stop.set()
        self._cell.note_end()

    def _run(self) -> None:
        self._cell.note_answer()
        while not self._stop.wait(PAUSE):
            try:
                if self._is_busy():
                    self._wait_for_answer()
                self._on_look()
            except RuntimeError:  # the loop is closed
                return
            self._cell.note_answer()
        self._cell.note_end()

    def _wait_for_answer(self) -> None:
        answered = threading.Event()
        self._loop.call_soon_threadsafe(answered.set)
        if not answered.wait(BLOCKED_SECONDS):
            self._report()
            while not answered.wait(PAUSE):
                # Another task may block it by now.
                self._cell.note_culprit(_agent_id(asyncio.current_task(self._loop)))

    def _report(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        task = asyncio.current_task(self._loop)
        if frame is None or task is None:
            return
        where = _place(frame)
        if time.monotonic() - self._named.get(where, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        self._named[where] = time.monotonic()
        log.warning(
            "%s has blocked the event loop for more than %g s, at %s. All other tasks of this process stand still: "
            "make the handler a plain function, or await asyncio.to_thread(...).",
            _name(task),
            BLOCKED_SECONDS,
            where,
        )


def _agent_id(task: asyncio.Task[object] | None) -> UUID | None:
    """Return the agentexec task to which an asyncio task belongs, if that can be told."""
    if isinstance(task, AttemptTask):
        return task.lease.agent_id
    context_of = getattr(task, "get_context", None)  # Python 3.11 does not tell
    lease = None if context_of is None else context_of().get(CURRENT_LEASE)
    return None if lease is None else lease.agent_id


def _name(task: asyncio.Task[object]) -> str:
    """Return which handler runs; a task that the handler has made has a name of its own."""
    ours, _, name = task.get_name().partition("agentexec:")
    return "A handler" if ours or not name else f"A task of {name}"


def _place(frame: FrameType) -> str:
    """Return the innermost line of the user's own code, or the innermost line if none of it is."""
    found: FrameType | None = frame
    while found is not None and not is_user_code(found.f_code.co_filename):
        found = found.f_back
    found = found or frame
    return f"{found.f_code.co_filename}, line {found.f_lineno}, in {found.f_code.co_name}"

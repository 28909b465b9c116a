"""Reads of the monitor: what is read next, and when."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from uuid import UUID

from agentexec.cli.database import session
from agentexec.cli.screen.background import Background, Job, Update
from agentexec.cli.screen.data import Detail, Query, load_detail, load_snapshot, load_usage
from agentexec.cli.screen.state import State
from agentexec.errors import AgentexecError

USAGE_SECONDS = 10.0
"""Seconds between two reads of tokens and cost, each in place of a refresh."""

TICK_SECONDS = 1.0
"""Seconds between two pictures while the database has not answered."""


class Refresher:
    """Reads what the state shows, on the background thread, every `interval` seconds.

    Its methods run on the screen's thread, except those that read: they get what they need as arguments, and return
    an update.
    """

    def __init__(self, state: State, background: Background, interval: float) -> None:
        self._state = state
        self._background = background
        self._interval = interval
        self._next_refresh = self._next_usage = 0.0
        self._requested = False

    @property
    def settled(self) -> bool:
        """True when everything that was requested is in the state."""
        return not (self._background.busy or self._requested)

    def request(self) -> None:
        """Refresh soon, even while paused: the user has asked for something else."""
        self._requested = True

    def update(self, page_size: Callable[[], int]) -> None:
        """Apply what was read, and start the next read, of `page_size()` tasks, when it is due."""
        for update in self._background.updates():
            try:
                update()
            except AgentexecError as error:
                self._state.error = str(error)
        now = time.monotonic()
        due = now >= self._next_refresh and not self._state.paused
        if (due or self._requested) and not self._background.busy:
            requested, self._requested = self._requested, False
            self._next_refresh = now + self._interval
            self._background.submit(self._next_job(page_size, requested))

    def timeout(self) -> float:
        """Return the seconds until there is something to do without a key."""
        if self._background.busy or self._state.message:
            return TICK_SECONDS
        return self._interval if self._state.paused else self._next_refresh - time.monotonic()

    def _next_job(self, page_size: Callable[[], int], requested: bool) -> Job:
        """Return the next read. What was not `requested` is dropped if the screen has been paused since."""
        state, now = self._state, time.monotonic()
        if state.opened is not None:
            return functools.partial(
                self.read_detail, state.opened, state.query, requested, known=state.detail
            )
        if state.snapshot is not None and now >= self._next_usage and not state.paused:
            self._next_usage = now + USAGE_SECONDS
            self._next_refresh = now
            return functools.partial(self._read_usage, state.query)
        return functools.partial(self.read_page, state.query, page_size(), state.page, requested)

    def read_page(self, query: Query, rows: int, page: int, requested: bool) -> Update:
        """Read one page of tasks; runs on the background thread."""
        with session() as db:
            snapshot = load_snapshot(db, query, rows, page * rows)

        def update() -> None:
            state = self._state
            state.error = ""
            if (query, page) == (state.query, state.page) and (requested or not state.paused):
                state.snapshot = snapshot

        return update

    def read_detail(
        self, agent_id: UUID, query: Query, requested: bool, known: Detail | None = None
    ) -> Update:
        """Read the details of one task; runs on the background thread."""
        with session() as db:
            detail = load_detail(db, agent_id, query, known)

        def update() -> None:
            state = self._state
            state.error = ""
            if agent_id == state.opened and (requested or not state.paused):
                state.detail = detail

        return update

    def _read_usage(self, query: Query) -> Update:
        with session() as db:
            usage = load_usage(db, query)

        def update() -> None:
            self._state.usage = usage

        return update

"""The monitor's loop: looks and keys in turns."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from agentexec.activity.queries.overview import SpentSchema
from agentexec.cli.dashboard import actions, view
from agentexec.cli.dashboard.background import Background
from agentexec.cli.dashboard.data import Detail, Query, Snapshot, load_detail, load_snapshot, load_usage
from agentexec.cli.dashboard.detail import render_detail
from agentexec.cli.dashboard.keys import Keys
from agentexec.cli.dashboard.plain import make_console
from agentexec.cli.database import session
from agentexec.cli.output import one_line
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError

SPENT_SECONDS = 10.0
"""What was spent is asked for now and then, in place of a look."""

SAID_SECONDS = 5.0
"""How long an answer to a key stays, unless another key is pressed."""

TICK_SECONDS = 1.0
"""Between two pictures while an answer of the database is awaited."""

FAR = 1_000_000

SORTS: dict[str, Callable[[Any], Any] | None] = {
    "status": None,
    "newest": lambda one: -one.created_at.timestamp(),
    "longest": lambda one: -(one.elapsed_seconds or 0),
    "task": lambda one: one.agent_type,
}
HELP = """\
↑ ↓ or k j     choose a task             Enter   its log, steps, children and error; Esc: back
← → or PgUp Dn  the page before, the next  /       filter: words, status:error type:research tenant=a
s              sort the page             p       pause, go on
c              cancel the task           r       retry a failed or canceled task
a              approve a waiting call    ?       this help
Home End       the first, the last       q       quit"""
KEYS = "? help  / filter  s sort  p pause  c cancel  r retry  a approve  q quit"


class Dashboard:
    """The monitor on a terminal, until `q`."""

    def __init__(self, query: Query, interval: float) -> None:
        self._query = query
        self._interval = interval
        self._console = make_console()
        self._keys = Keys()
        self._background = Background(self._keys.wake)
        self._seen: Snapshot | None = None
        self._spent: SpentSchema | None = None
        self._detail: Detail | None = None
        self._lines: tuple[Detail, int, list[Text]] | None = None
        self._opened: UUID | None = None
        self._next_look = self._next_spent = 0.0
        self._followed: UUID | None = None
        self._chosen = self._scroll = self._page = 0
        self._sort = "status"
        self._paused = self._help_open = self._wanted = False
        self._typed: str | None = None
        self._asked: tuple[str, Callable[[], str]] | None = None
        self._trouble = self._message = ""
        self._message_at = 0.0

    def run(self) -> None:
        """Show everything until the user quits; the terminal is as before afterwards, and while it is suspended."""
        while self._show() == "suspend":
            os.kill(os.getpid(), signal.SIGSTOP)  # until `fg`
            self._soon()

    def _show(self) -> str:
        """Until a key ends or suspends it."""
        with (
            self._keys.open(),
            Live(console=self._console, screen=True, auto_refresh=False, transient=True) as live,
        ):
            while True:
                self._look_again()
                live.update(self._picture(), refresh=True)
                for key in self._keys.wait(self._patience()):
                    if key == "suspend" or not self._press(key):
                        return key

    # ---- looks -------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """Take what was read, and let it be read again when it is time."""
        for take in self._background.results():
            try:
                take()
            except AgentexecError as error:
                self._trouble = str(error)
        clock = time.monotonic()
        due = clock >= self._next_look and not self._paused
        if (due or self._wanted) and not self._background.busy:
            asked, self._wanted = self._wanted, False
            self._next_look = clock + self._interval
            self._background.submit(self._read(asked))

    def _patience(self) -> float:
        """Seconds until there is something to do without a key."""
        if self._background.busy or self._message:
            return TICK_SECONDS
        return self._interval if self._paused else self._next_look - time.monotonic()

    def _read(self, asked: bool) -> Callable[[], Callable[[], None]]:
        """What the thread does: it reads, and gives back what is to be done with that.

        What nobody `asked` for is dropped if the screen was paused meanwhile.
        """
        clock, query = time.monotonic(), self._query
        if self._opened is not None:
            return functools.partial(self._read_detail, self._opened, query, asked)
        if self._seen is not None and clock >= self._next_spent and not self._paused:
            self._next_spent = clock + SPENT_SECONDS
            self._next_look = clock
            return functools.partial(self._read_spent, query)
        return functools.partial(self._read_page, query, self._rows(), self._page, asked)

    def _read_page(self, query: Query, rows: int, page: int, asked: bool) -> Callable[[], None]:
        with session() as db:
            seen = load_snapshot(db, query, rows, page * rows)

        def take() -> None:
            self._trouble = ""
            if (query, page) == (self._query, self._page) and (asked or not self._paused):
                self._seen = seen

        return take

    def _read_spent(self, query: Query) -> Callable[[], None]:
        with session() as db:
            found = load_usage(db, query)
        return lambda: setattr(self, "_spent", found)

    def _read_detail(self, agent_id: UUID, query: Query, asked: bool) -> Callable[[], None]:
        with session() as db:
            found = load_detail(db, agent_id, query)

        def take() -> None:
            self._trouble = ""
            if agent_id == self._opened and (asked or not self._paused):
                self._detail = found

        return take

    # ---- picture -----------------------------------------------------------------------------------------

    def _rows(self) -> int:
        """Lines of the screen that are left for tasks."""
        taken = 5 if self._seen is None else len(self._top()) + 1
        return max(1, self._console.height - taken - 1)

    def _top(self) -> list[Text]:
        assert self._seen is not None  # noqa: S101 - what the caller has looked at
        height, width = self._console.height, self._console.width
        head = view.header(
            self._seen.overview, self._spent, width, paused=self._paused, query=str(self._query)
        )
        most = max(1, (height - 7) // 2)
        # In a window of a few lines, one task and what is asked matter most.
        return [*head, *view.workers(self._seen.overview, width, most)][: max(0, height - 3)]

    def _items(self) -> list[Any]:
        """The tasks of the page as they are sorted; the chosen one is followed where it moves."""
        if self._seen is None:
            return []
        key = SORTS[self._sort]
        items = self._seen.items if key is None else sorted(self._seen.items, key=key)
        places = [at for at, one in enumerate(items) if one.agent_id == self._followed]
        self._chosen = places[0] if places else max(0, min(self._chosen, len(items) - 1))
        return items

    def _picture(self) -> RenderableType:
        foot = self._footer()
        room = max(0, self._console.height - len(foot))
        if self._help_open:
            return Group(Text("Keys", "bold"), Text(HELP, overflow="crop"), *foot)
        if self._opened is not None:
            return Group(*self._detail_lines(room), *foot)
        if self._seen is None:
            return Group(Text("agentexec monitor: looking..."), *foot)
        top = self._top()[: max(0, room - 2)]
        items = self._items()
        rows = max(0, room - len(top) - 1)
        first = max(0, self._chosen - rows + 1)
        now = self._seen.overview.at if self._paused else utc_now()
        body: RenderableType = view.table(
            items[first : first + rows], now, self._console.width, self._chosen - first
        )
        if not items:
            body = Text("There are no such tasks.")
        return Group(*top, body, *foot)

    def _detail_lines(self, room: int) -> list[Text]:
        if self._detail is None:
            return [Text("looking...")][:room]
        width = self._console.width
        if self._lines is None or self._lines[0] is not self._detail or self._lines[1] != width:
            every = [
                part
                for line in render_detail(self._detail, utc_now())
                for part in view.wrap_line(line, self._console)
            ]
            self._lines = (self._detail, width, every)
        every = self._lines[2]
        self._scroll = max(0, min(self._scroll, len(every) - room))
        return every[self._scroll : self._scroll + room]

    def _footer(self) -> list[Text]:
        """One line; of a question as many as it needs."""
        if self._message and time.monotonic() - self._message_at > SAID_SECONDS:
            self._message = ""
        text = Text(no_wrap=True, overflow="ellipsis")
        if self._typed is not None:
            text.append(f"/{self._typed}"[-self._console.width + 1 :] + "█", "bold")
        elif self._asked is not None:
            asked = view.wrap_line(Text(self._asked[0], "bold yellow"), self._console)
            room = max(1, self._console.height // 2)
            if len(asked) > room:
                asked = [*asked[: room - 1], Text("... (Enter shows all of it)", "bold yellow")]
            return [*asked, Text("y: yes   any other key: no", "bold yellow", no_wrap=True)]
        elif self._message or self._trouble:
            text.append(one_line(self._message or self._trouble), "bold red" if self._trouble else "bold")
        elif self._opened is not None:
            text.append("Esc back  ↑↓ scroll  c cancel  r retry  a approve  q quit", "dim")
        else:
            more = (
                ""
                if self._seen is None or not (self._seen.has_more or self._page)
                else f"page {self._page + 1}  "
            )
            sort = "" if self._sort == "status" else f"sort: {self._sort}  "
            text.append(more + sort + KEYS, "dim")
        return [text]

    # ---- keys --------------------------------------------------------------------------------------------

    def _press(self, key: str) -> bool:
        """Do what a key says; False to quit."""
        self._message = ""
        if self._typed is not None:
            self._type(key)
        elif self._asked is not None:
            self._answer(key)
        elif key == "q":
            return False
        elif self._help_open:
            self._help_open = False
        elif key == "?":
            self._help_open = True
        elif key in _ACTIONS:
            _ACTIONS[key](self)
        return True

    def _soon(self) -> None:
        """Look at once, also while it is paused: the user has asked for something else."""
        self._wanted = True

    def _say(self, text: str) -> None:
        self._message, self._message_at = text, time.monotonic()

    def _move(self, by: int) -> None:
        if self._opened is not None:
            self._scroll = max(0, self._scroll + by)
        elif items := self._items():
            self._chosen = max(0, min(self._chosen + by, len(items) - 1))
            # At the top one sees what comes first, whatever that is.
            self._followed = items[self._chosen].agent_id if self._chosen else None

    def _turn(self, by: int) -> None:
        if self._opened is not None:
            self._move(by * max(1, self._console.height - 2))
        elif self._seen is not None and (by < 0 < self._page or (by > 0 and self._seen.has_more)):
            self._page += by
            self._chosen, self._followed = 0, None
            self._soon()

    def _open(self) -> None:
        if (agent_id := self._target()) is not None:
            self._opened, self._detail, self._scroll = agent_id, None, 0
            self._followed = agent_id
            self._soon()

    def _back(self) -> None:
        self._opened = self._detail = None
        self._trouble = ""
        self._soon()

    def _pause(self) -> None:
        self._paused = not self._paused
        if not self._paused:
            self._soon()

    def _next_sort(self) -> None:
        names = list(SORTS)
        self._sort = names[(names.index(self._sort) + 1) % len(names)]

    def _type(self, key: str) -> None:
        assert self._typed is not None  # noqa: S101 - what the caller has looked at
        if key == "enter":
            try:
                self._query = Query.parse(self._typed)
                self._page = self._chosen = 0
                self._followed = None
            except AgentexecError as error:
                self._say(str(error))
            self._typed = None
            self._soon()
        elif key == "escape":
            self._typed = None
        elif key == "backspace":
            self._typed = self._typed[:-1]
        elif len(key) == 1:
            self._typed += key

    def _answer(self, key: str) -> None:
        assert self._asked is not None  # noqa: S101 - what the caller has looked at
        act = self._asked[1]
        self._asked = None
        if key.lower() == "y":
            self._background.submit(lambda: self._done(act))
            self._soon()

    def _done(self, act: Callable[[], str]) -> Callable[[], None]:
        try:
            said = act()
        except AgentexecError as error:
            said = str(error)
        return lambda: self._say(said)

    def _target(self) -> UUID | None:
        """The task that is opened or chosen; from now on it is followed."""
        if self._opened is not None:
            return self._opened
        items = self._items()
        if not items:
            return None
        self._followed = items[self._chosen].agent_id
        return self._followed

    def _cancel(self) -> None:
        if (agent_id := self._target()) is not None:
            self._asked = (f"Cancel task {agent_id}?", actions.cancel_action(agent_id, self._query.metadata))

    def _retry(self) -> None:
        if (agent_id := self._target()) is not None:
            self._asked = (
                f"Put task {agent_id} back on the queue?",
                actions.retry_action(agent_id, self._query.metadata),
            )

    def _approve(self) -> None:
        if (agent_id := self._target()) is not None:
            scope = self._query.metadata
            self._background.submit(lambda: self._found(actions.approval_question(agent_id, scope)))

    def _found(self, question: actions.Question) -> Callable[[], None]:
        def take() -> None:
            if question.act is None:
                self._say(question.text)
            else:
                self._asked, self._typed, self._help_open = (question.text, question.act), None, False

        return take

    def _filter(self) -> None:
        self._typed = str(self._query)


_ACTIONS: dict[str, Callable[[Dashboard], None]] = {
    "up": lambda it: it._move(-1),
    "k": lambda it: it._move(-1),
    "down": lambda it: it._move(1),
    "j": lambda it: it._move(1),
    "left": lambda it: it._turn(-1),
    "page up": lambda it: it._turn(-1),
    "right": lambda it: it._turn(1),
    "page down": lambda it: it._turn(1),
    "home": lambda it: it._move(-FAR),
    "end": lambda it: it._move(FAR),
    "enter": Dashboard._open,
    "escape": Dashboard._back,
    "/": Dashboard._filter,
    "s": Dashboard._next_sort,
    "p": Dashboard._pause,
    "c": Dashboard._cancel,
    "r": Dashboard._retry,
    "a": Dashboard._approve,
}

"""The monitor's loop: looks and keys in turns. Looks are taken in a thread, so that keys are answered also while a
database is slow or away."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

import agentexec as ax
from agentexec.activity.overview import SpentSchema
from agentexec.cli.common import one_line, session
from agentexec.cli.dashboard import view
from agentexec.cli.dashboard.data import ONCE, Detail, Snapshot, Wish, look, look_up, used
from agentexec.cli.dashboard.detail import lines
from agentexec.cli.dashboard.keys import Keys
from agentexec.db import utc_now
from agentexec.errors import AgentexecError

SPENT_SECONDS = 10.0
"""What was spent is asked for now and then, in place of a look."""

PRINTED_WIDTH = 160
"""Columns where the output is no terminal."""

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
q              quit"""
KEYS = "? help  / filter  s sort  p pause  c cancel  r retry  a approve  q quit"


def _console() -> Console:
    # Where COLUMNS and LINES are exported, they are those of the time before a window was resized.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return Console(highlight=False, _environ=environment)


def print_once(wish: Wish) -> None:
    """One look, for a pipe, a file, or --once."""
    console = _console()
    if not console.is_terminal:
        console = Console(highlight=False, width=PRINTED_WIDTH)
    width = console.width
    with session() as db:
        seen = look(db, wish, ONCE, 0)
        cost = used(db, wish)
    parts: list[RenderableType] = [
        *view.header(seen.overview, cost, width, paused=False, wish=str(wish)),
        *view.workers(seen.overview, width),
        view.table(seen.items, seen.overview.at, width),
    ]
    console.print(Group(*parts))


class Dashboard:
    """The monitor on a terminal, until `q`."""

    def __init__(self, wish: Wish, interval: float) -> None:
        self._wish = wish
        self._interval = interval
        self._console = _console()
        self._keys = Keys()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentexec-monitor")
        self._look: Future[Any] | None = None
        self._seen: Snapshot | None = None
        self._spent: SpentSchema | None = None
        self._detail: Detail | None = None
        self._opened: UUID | None = None
        self._next_look = self._next_spent = 0.0
        self._chosen = self._scroll = self._page = 0
        self._sort = "status"
        self._paused = self._helps = False
        self._typed: str | None = None
        self._asked: tuple[str, Callable[[], str]] | None = None
        self._said = ""

    def run(self) -> None:
        """Show everything until the user quits; the terminal is as before afterwards."""
        with self._keys.open():
            with Live(console=self._console, screen=True, auto_refresh=False, transient=True) as live:
                going = True
                while going:
                    self._look_again()
                    live.update(self._picture(), refresh=True)
                    for key in self._keys.wait(max(0.05, self._next_look - time.monotonic())):
                        going = going and self._press(key)
            self._thread.shutdown(wait=False, cancel_futures=True)

    # ---- looks -------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """Take what the thread has read, and let it read again when it is time."""
        if self._look is not None and self._look.done():
            future, self._look = self._look, None
            try:
                future.result()()
            except AgentexecError as error:
                self._said = str(error)
        clock = time.monotonic()
        if self._look is None and clock >= self._next_look and not self._paused:
            self._next_look = clock + self._interval
            self._look = self._thread.submit(self._read())
            self._look.add_done_callback(lambda _: self._keys.ring())

    def _read(self) -> Callable[[], Callable[[], None]]:
        """What the thread does: it reads, and gives back what is to be done with that."""
        clock, wish = time.monotonic(), self._wish
        if self._opened is not None:
            return functools.partial(self._read_detail, self._opened, wish)
        if self._seen is not None and clock >= self._next_spent:
            self._next_spent = clock + SPENT_SECONDS
            self._next_look = clock
            return functools.partial(self._read_spent, wish)
        return functools.partial(self._read_page, wish, self._rows(), self._page)

    def _read_page(self, wish: Wish, rows: int, page: int) -> Callable[[], None]:
        with session() as db:
            seen = look(db, wish, rows, page * rows)

        def take() -> None:
            self._seen = seen
            self._said = self._said if self._typed is not None or self._asked else ""

        return take

    def _read_spent(self, wish: Wish) -> Callable[[], None]:
        with session() as db:
            found = used(db, wish)
        return lambda: setattr(self, "_spent", found)

    def _read_detail(self, agent_id: UUID, wish: Wish) -> Callable[[], None]:
        with session() as db:
            found = look_up(db, agent_id, wish)
        return lambda: setattr(self, "_detail", found)

    # ---- picture -----------------------------------------------------------------------------------------

    def _rows(self) -> int:
        """Lines of the screen that are left for tasks."""
        taken = 5 if self._seen is None else len(self._top()) + 1
        return max(1, self._console.height - taken - 1)

    def _top(self) -> list[Text]:
        assert self._seen is not None  # noqa: S101 - what the caller has looked at
        width = self._console.width
        head = view.header(self._seen.overview, self._spent, width, paused=self._paused, wish=str(self._wish))
        return [*head, *view.workers(self._seen.overview, width)]

    def _items(self) -> list[Any]:
        assert self._seen is not None  # noqa: S101 - what the caller has looked at
        key = SORTS[self._sort]
        items = self._seen.items
        return items if key is None else sorted(items, key=key)

    def _picture(self) -> RenderableType:
        height, width = self._console.height, self._console.width
        if self._helps:
            return Group(Text("Keys", "bold"), Text(HELP, overflow="crop"), self._footer())
        if self._opened is not None:
            return self._detail_picture(height)
        if self._seen is None:
            return Group(Text("agentexec monitor: looking..."), self._footer())
        items = self._items()[: self._rows()]
        self._chosen = max(0, min(self._chosen, len(items) - 1))
        body: RenderableType = view.table(items, utc_now(), width, self._chosen)
        if not items:
            body = Text("There are no such tasks.")
        return Group(*self._top(), body, self._footer())

    def _detail_picture(self, height: int) -> RenderableType:
        if self._detail is None:
            return Group(Text("looking..."), self._footer())
        every = lines(self._detail, utc_now())
        room = max(1, height - 1)
        self._scroll = max(0, min(self._scroll, len(every) - room))
        return Group(*every[self._scroll : self._scroll + room], self._footer())

    def _footer(self) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        if self._typed is not None:
            text.append(f"/{self._typed}█", "bold")
        elif self._asked is not None:
            text.append(f"{self._asked[0]} (y/n)", "bold yellow")
        elif self._said:
            text.append(one_line(self._said), "bold red")
        elif self._opened is not None:
            text.append("Esc back  ↑↓ scroll  c cancel  r retry  a approve  q quit", "dim")
        else:
            more = (
                ""
                if self._seen is None or not (self._seen.more or self._page)
                else f"page {self._page + 1}  "
            )
            sort = "" if self._sort == "status" else f"sort: {self._sort}  "
            text.append(more + sort + KEYS, "dim")
        return text

    # ---- keys --------------------------------------------------------------------------------------------

    def _press(self, key: str) -> bool:
        """Do what a key says; False to quit."""
        if self._typed is not None:
            self._type(key)
        elif self._asked is not None:
            self._answer(key)
        elif key == "q":
            return False
        elif self._helps:
            self._helps = False
        elif key == "?":
            self._helps = True
        elif key in _ACTIONS:
            _ACTIONS[key](self)
        return True

    def _soon(self) -> None:
        self._next_look = 0.0

    def _move(self, by: int) -> None:
        if self._opened is None:
            self._chosen += by
        else:
            self._scroll = max(0, self._scroll + by)

    def _turn(self, by: int) -> None:
        if self._opened is not None:
            self._move(by * max(1, self._console.height - 2))
        elif self._seen is not None and (by < 0 < self._page or (by > 0 and self._seen.more)):
            self._page += by
            self._chosen = 0
            self._soon()

    def _open(self) -> None:
        if (agent_id := self._target()) is not None:
            self._opened, self._detail, self._scroll = agent_id, None, 0
            self._soon()

    def _back(self) -> None:
        self._opened = self._detail = None
        self._said = ""
        self._soon()

    def _pause(self) -> None:
        self._paused = not self._paused
        self._soon()

    def _next_sort(self) -> None:
        names = list(SORTS)
        self._sort = names[(names.index(self._sort) + 1) % len(names)]

    def _type(self, key: str) -> None:
        assert self._typed is not None  # noqa: S101 - what the caller has looked at
        if key == "enter":
            try:
                self._wish = Wish.parse(self._typed)
                self._page = self._chosen = 0
                self._said = ""
            except AgentexecError as error:
                self._said = str(error)
            self._typed = None
            self._soon()
        elif key == "escape":
            self._typed = None
        elif key == "backspace":
            self._typed = self._typed[:-1]
        elif len(key) == 1:
            self._typed += key

    def _ask(self, question: str, act: Callable[[], str]) -> None:
        self._asked = (question, act)

    def _answer(self, key: str) -> None:
        assert self._asked is not None  # noqa: S101 - what the caller has looked at
        _, act = self._asked
        self._asked = None
        if key.lower() != "y":
            return
        try:
            self._said = act()
        except AgentexecError as error:
            self._said = str(error)
        self._soon()

    def _target(self) -> UUID | None:
        """The task that is opened or chosen."""
        if self._opened is not None:
            return self._opened
        items = self._items() if self._seen is not None else []
        return items[self._chosen].agent_id if self._chosen < len(items) else None

    def _cancel(self) -> None:
        if (agent_id := self._target()) is not None:
            scope = self._wish.metadata
            self._ask(
                f"Cancel task {agent_id}?",
                lambda: (
                    "" if ax.cancel_sync(agent_id, metadata_filter=scope) else f"Task {agent_id} had ended."
                ),
            )

    def _retry(self) -> None:
        if (agent_id := self._target()) is not None:
            scope = self._wish.metadata
            self._ask(
                f"Put task {agent_id} back on the queue?",
                lambda: (
                    ""
                    if ax.retry_sync(agent_id, metadata_filter=scope)
                    else "Only failed and canceled tasks can be retried."
                ),
            )

    def _approve(self) -> None:
        agent_id = self._target()
        if agent_id is None:
            return
        try:
            with session() as db:
                waiting = ax.approvals.list(db, agent_id, metadata_filter=self._wish.metadata)
        except AgentexecError as error:
            self._said = str(error)
            return
        if not waiting:
            self._said = "No call of this task waits for approval."
            return
        one = waiting[0]

        def act() -> str:
            done = ax.approve_sync(agent_id, one.call_id, metadata_filter=self._wish.metadata)
            return "" if done else "The call was decided before."

        self._ask(f"Approve {one.tool}({one_line(one.arguments)})?", act)

    def _filter(self) -> None:
        self._typed = str(self._wish)


_ACTIONS: dict[str, Callable[[Dashboard], None]] = {
    "up": lambda it: it._move(-1),
    "k": lambda it: it._move(-1),
    "down": lambda it: it._move(1),
    "j": lambda it: it._move(1),
    "left": lambda it: it._turn(-1),
    "page up": lambda it: it._turn(-1),
    "right": lambda it: it._turn(1),
    "page down": lambda it: it._turn(1),
    "enter": Dashboard._open,
    "escape": Dashboard._back,
    "/": Dashboard._filter,
    "s": Dashboard._next_sort,
    "p": Dashboard._pause,
    "c": Dashboard._cancel,
    "r": Dashboard._retry,
    "a": Dashboard._approve,
}

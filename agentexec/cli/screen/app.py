"""The monitor on a terminal: a loop that refreshes, draws and answers keys."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from rich.live import Live

from agentexec.cli.screen import actions
from agentexec.cli.screen.background import Background, Update
from agentexec.cli.screen.data import Query
from agentexec.cli.screen.keys import Keys
from agentexec.cli.screen.picture import Picture
from agentexec.cli.screen.plain import make_console
from agentexec.cli.screen.refresh import Refresher
from agentexec.cli.screen.state import SORT_KEYS, State
from agentexec.errors import AgentexecError

FAR = 1_000_000
"""More lines than any list or detail has."""


class Dashboard:
    """The monitor, until the user quits it. One thread runs the loop; reads and actions run in the background."""

    def __init__(self, query: Query, interval: float) -> None:
        self._keys = Keys()
        self._state = State(query)
        self._background = Background(self._keys.wake)
        self._refresher = Refresher(self._state, self._background, interval)
        self._picture = Picture(self._state, make_console())

    def run(self) -> None:
        """Show the monitor until the user quits. The terminal is restored then, and while it is suspended."""
        while self._show() == "suspend":
            os.kill(os.getpid(), signal.SIGSTOP)  # until `fg`
            self._refresher.request()

    def _show(self) -> str:
        """Run the loop until a key ends or suspends it, and return that key."""
        with (
            self._keys.open(),
            Live(console=self._picture.console, screen=True, auto_refresh=False, transient=True) as live,
        ):
            while True:
                self._refresher.update(self._picture.rows)
                live.update(self._picture.render(), refresh=True)
                for key in self._keys.wait(self._refresher.timeout()):
                    if key == "suspend" or not self._press(key):
                        return key

    def _press(self, key: str) -> bool:
        """Do what a key stands for; return False to quit."""
        state = self._state
        state.message = ""
        if state.filter_text is not None:
            self._type(state.filter_text, key)
        elif state.question is not None:
            self._answer(state.question, key)
        elif key == "q":
            return False
        elif state.help_open:
            state.help_open = False
        elif key == "?":
            state.help_open = True
        elif key in _ACTIONS:
            _ACTIONS[key](self)
        return True

    # ---- moving around -----------------------------------------------------------------------------------

    def _move(self, lines: int) -> None:
        state = self._state
        if state.opened is not None:
            state.scroll = max(0, state.scroll + lines)
        elif items := state.items():
            state.selected = max(0, min(state.selected + lines, len(items) - 1))
            # At the top, the selection stays on whatever comes first.
            state.followed = items[state.selected].agent_id if state.selected else None

    def _turn(self, pages: int) -> None:
        state = self._state
        if state.opened is not None:
            self._move(pages * max(1, self._picture.console.height - 2))
        elif state.snapshot is not None and (
            pages < 0 < state.page or (pages > 0 and state.snapshot.has_more)
        ):
            state.page += pages
            state.selected, state.followed = 0, None
            self._refresher.request()

    def _open(self) -> None:
        if (agent_id := self._state.target()) is not None:
            self._state.opened, self._state.detail, self._state.scroll = agent_id, None, 0
            self._state.followed = agent_id
            self._refresher.request()

    def _close(self) -> None:
        self._state.opened = self._state.detail = None
        self._state.error = ""
        self._refresher.request()

    def _pause(self) -> None:
        self._state.paused = not self._state.paused
        if not self._state.paused:
            self._refresher.request()

    def _next_sort(self) -> None:
        orders = list(SORT_KEYS)
        self._state.sort = orders[(orders.index(self._state.sort) + 1) % len(orders)]

    # ---- filter ------------------------------------------------------------------------------------------

    def _filter(self) -> None:
        self._state.filter_text = str(self._state.query)

    def _type(self, text: str, key: str) -> None:
        state = self._state
        if key == "enter":
            state.filter_text = None
            self._apply_filter(text)
        elif key == "escape":
            state.filter_text = None
        elif key == "backspace":
            state.filter_text = text[:-1]
        elif len(key) == 1:
            state.filter_text = text + key

    def _apply_filter(self, text: str) -> None:
        state = self._state
        try:
            state.query = Query.parse(text)
            state.page = state.selected = 0
            state.followed = None
        except AgentexecError as error:
            state.show_message(str(error))
        self._refresher.request()

    # ---- actions on a task -------------------------------------------------------------------------------

    def _cancel(self) -> None:
        if (agent_id := self._state.target()) is not None:
            self._state.question = actions.ask_to_cancel(agent_id, self._state.query.metadata)

    def _retry(self) -> None:
        if (agent_id := self._state.target()) is not None:
            self._state.question = actions.ask_to_retry(agent_id, self._state.query.metadata)

    def _approve(self) -> None:
        if (agent_id := self._state.target()) is not None:
            scope = self._state.query.metadata
            self._background.submit(lambda: self._ask(actions.ask_to_approve(agent_id, scope)))

    def _ask(self, question: actions.Question) -> Update:
        def update() -> None:
            state = self._state
            if question.act is None:
                state.show_message(question.text)
            else:
                state.question, state.filter_text, state.help_open = question, None, False

        return update

    def _answer(self, question: actions.Question, key: str) -> None:
        self._state.question = None
        act = question.act
        if key.lower() == "y" and act is not None:
            self._background.submit(lambda: self._run(act))
            self._refresher.request()

    def _run(self, act: Callable[[], str]) -> Update:
        """Run an action, on the background thread, and return the update that shows its outcome."""
        try:
            outcome = act()
        except AgentexecError as error:
            outcome = str(error)
        return lambda: self._state.show_message(outcome)


_ACTIONS: dict[str, Callable[[Dashboard], None]] = {
    "up": lambda dashboard: dashboard._move(-1),
    "k": lambda dashboard: dashboard._move(-1),
    "down": lambda dashboard: dashboard._move(1),
    "j": lambda dashboard: dashboard._move(1),
    "left": lambda dashboard: dashboard._turn(-1),
    "page up": lambda dashboard: dashboard._turn(-1),
    "right": lambda dashboard: dashboard._turn(1),
    "page down": lambda dashboard: dashboard._turn(1),
    "home": lambda dashboard: dashboard._move(-FAR),
    "end": lambda dashboard: dashboard._move(FAR),
    "enter": Dashboard._open,
    "escape": Dashboard._close,
    "/": Dashboard._filter,
    "s": Dashboard._next_sort,
    "p": Dashboard._pause,
    "c": Dashboard._cancel,
    "r": Dashboard._retry,
    "a": Dashboard._approve,
}

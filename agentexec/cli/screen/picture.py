"""The monitor's whole screen, composed from its state for the console's size."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.text import Text

from agentexec.cli.output import one_line
from agentexec.cli.screen import view
from agentexec.cli.screen.data import Detail, Snapshot
from agentexec.cli.screen.detail import render_detail
from agentexec.cli.screen.state import State
from agentexec.db.clock import utc_now

HELP = """\
↑ ↓ or k j     select a task             Enter   its log, steps, children and error; Esc: back
← → or PgUp Dn previous, next page       /       filter: words, status:error task:research tenant=a
s              change the sort order     p       pause or resume
c              cancel the task           r       retry a failed or canceled task
a              approve a waiting call    ?       this help
Home End       first, last task          q       quit"""

LIST_KEYS = "? help  / filter  s sort  p pause  c cancel  r retry  a approve  q quit"
DETAIL_KEYS = "Esc back  ↑↓ scroll  c cancel  r retry  a approve  q quit"


class Picture:
    """Renders the state on a console."""

    def __init__(self, state: State, console: Console) -> None:
        self.console = console
        self._state = state
        self._wrapped: tuple[Detail, int, list[Text]] | None = None
        """Lines of the details, kept as long as neither the details nor the width changes."""

    def rows(self) -> int:
        """Return the number of the screen's lines that are left for tasks."""
        snapshot = self._state.snapshot
        used = 5 if snapshot is None else len(self._top(snapshot)) + 1
        return max(1, self.console.height - used - 1)

    def render(self) -> RenderableType:
        """Return the screen: help, details of a task, or the list of tasks, and the footer."""
        state = self._state
        footer = self._footer()
        room = max(0, self.console.height - len(footer))
        if state.help_open:
            return Group(Text("Keys", "bold"), Text(HELP, overflow="crop"), *footer)
        if state.opened is not None:
            return Group(*self._detail_lines(room), *footer)
        if state.snapshot is None:
            return Group(Text("agentexec monitor: loading..."), *footer)
        return Group(*self._list(state.snapshot, room), *footer)

    def _top(self, snapshot: Snapshot) -> list[Text]:
        state, height, width = self._state, self.console.height, self.console.width
        header = view.header(
            snapshot.overview, state.usage, width, paused=state.paused, query=str(state.query)
        )
        max_workers = max(1, (height - 7) // 2)
        # In a window of a few lines, one task and the footer matter most.
        return [*header, *view.workers(snapshot.overview, width, max_workers)][: max(0, height - 3)]

    def _list(self, snapshot: Snapshot, room: int) -> list[RenderableType]:
        top = self._top(snapshot)[: max(0, room - 2)]
        items = self._state.items()
        if not items:
            return [*top, Text("No tasks match.")]
        selected = self._state.selected
        rows = max(0, room - len(top) - 1)
        first = max(0, selected - rows + 1)
        now = snapshot.overview.at if self._state.paused else utc_now()
        return [*top, view.table(items[first : first + rows], now, self.console.width, selected - first)]

    def _detail_lines(self, room: int) -> list[Text]:
        detail, width = self._state.detail, self.console.width
        if detail is None:
            return [Text("loading...")][:room]
        if self._wrapped is None or self._wrapped[0] is not detail or self._wrapped[1] != width:
            wrapped = [
                part
                for line in render_detail(detail, utc_now())
                for part in view.wrap_line(line, self.console)
            ]
            self._wrapped = (detail, width, wrapped)
        lines = self._wrapped[2]
        first = self._state.scroll = max(0, min(self._state.scroll, len(lines) - room))
        return lines[first : first + room]

    def _footer(self) -> list[Text]:
        """Return one line, or as many as a question needs."""
        state = self._state
        state.expire_message()
        if state.filter_text is None and state.question is not None:
            return self._question_lines(state.question.text)
        text = Text(no_wrap=True, overflow="ellipsis")
        if state.filter_text is not None:
            text.append(f"/{state.filter_text}"[-self.console.width + 1 :] + "█", "bold")
        elif state.message or state.error:
            text.append(one_line(state.message or state.error), "bold red" if state.error else "bold")
        elif state.opened is not None:
            text.append(DETAIL_KEYS, "dim")
        else:
            text.append(self._position() + LIST_KEYS, "dim")
        return [text]

    def _question_lines(self, question: str) -> list[Text]:
        lines = view.wrap_line(Text(question, "bold yellow"), self.console)
        room = max(1, self.console.height // 2)
        if len(lines) > room:
            lines = [*lines[: room - 1], Text("... (Enter shows all of it)", "bold yellow")]
        return [*lines, Text("y: yes   any other key: no", "bold yellow", no_wrap=True)]

    def _position(self) -> str:
        """Return the page and the sort order, each unless it is the default."""
        state = self._state
        has_pages = state.snapshot is not None and (state.snapshot.has_more or state.page > 0)
        page = f"page {state.page + 1}  " if has_pages else ""
        return page + ("" if state.sort == "status" else f"sort: {state.sort}  ")

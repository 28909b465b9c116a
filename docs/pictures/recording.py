"""The recorded terminal: a worker is killed with -9, and its agent goes on at the last finished turn.

A real run; only long waits are cut when it is drawn.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator

from rich.text import Text

from docs.pictures.site import Site, script, site
from docs.pictures.terminal import Line, Pane, draw

COLUMNS = 92
LONGEST_WAIT = 0.9
"""Seconds to which the picture cuts a wait."""

KILLED_AT = "Comparing them"
ENQUEUE = ["enqueue", "research", '{"company": "Acme"}', "--follow"]


class Story:
    """Lines of two terminals, in the order and at the distances in which they were seen."""

    def __init__(self) -> None:
        self.application: list[Line] = []
        self.host: list[Line] = []
        self._clock = 0.0
        self._before = time.monotonic()

    def add(self, lines: list[Line], text: Text) -> None:
        now = time.monotonic()
        self._clock += min(now - self._before, LONGEST_WAIT)
        self._before = now
        lines.append(Line(text, self._clock))

    def type(self, lines: list[Line], command: str, style: str = "bold") -> None:
        self.add(lines, Text.assemble(("$ ", "green"), (command, style)))


def record() -> str:
    """Run the story, and return its picture."""
    story = Story()
    with site() as made:
        made.model.script(script(pause=0.7))
        _run(story, made)
    panes = [Pane("your application", story.application), Pane("the worker's host", story.host)]
    label = "A worker is killed with kill -9; a new worker resumes the agent at its last finished turn."
    return draw(panes, COLUMNS, label)


def _run(story: Story, made: Site) -> None:
    story.type(story.host, "agentexec worker worker.py")
    made.start_worker()
    story.type(story.application, """agentexec enqueue research '{"company": "Acme"}' --follow""")
    killed = False
    for text in _messages(made.start(*ENQUEUE).stdout or ()):
        story.add(story.application, text)
        if KILLED_AT in text.plain and not killed:
            killed = True
            time.sleep(0.3)
            made.stop_worker(signal.SIGKILL)
            story.type(story.host, 'pkill -9 -f "agentexec worker"', "bold red")
            story.type(story.host, "agentexec worker worker.py")
            made.start_worker()


def _messages(output: Iterable[str]) -> Iterator[Text]:
    """Yield the lines of `--follow`, with the progress and what matters in color."""
    for line in output:
        text = Text(line.rstrip("\n"))
        text.highlight_regex(r"^ *\d+ ?%", "cyan")
        text.highlight_regex(r"Resumed at turn \d+", "bold yellow")
        text.highlight_regex(r"Task completed.*", "green")
        yield text

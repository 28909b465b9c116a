"""Terminals as SVG: lines that stand still, or appear one after the other as they were recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import MONOKAI, TerminalTheme
from rich.text import Text

CHAR_WIDTH, LINE_HEIGHT, FONT_SIZE = 8.4, 19, 14
PADDING, BAR = 16, 34
THEME: TerminalTheme = MONOKAI
BACKGROUND, FRAME, FOREGROUND, TITLE = "#12151c", "#2a2f3a", "#d7dbe4", "#8b93a5"

STYLE = f"""
text {{ font: {FONT_SIZE}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: {FOREGROUND};
  white-space: pre; }}
.t {{ fill: {TITLE}; font-size: 12px; }}
.l {{ opacity: 0; animation: show 0.01s linear forwards; }}
@keyframes show {{ to {{ opacity: 1; }} }}
@media (prefers-reduced-motion: reduce) {{ .l {{ opacity: 1; animation: none; }} }}
"""


@dataclass(frozen=True)
class Line:
    """Line of a terminal. `at`: seconds after which it appears; None: it is there from the start."""

    text: Text
    at: float | None = None


@dataclass(frozen=True)
class Pane:
    """Terminal window with a title."""

    title: str
    lines: Sequence[Line]


def ansi_lines(output: str) -> list[Line]:
    """Return the lines of a program's output, with the colors that its escape sequences name."""
    return [Line(Text.from_ansi(line)) for line in output.rstrip("\n").split("\n")]


def draw(panes: Sequence[Pane], columns: int, label: str) -> str:
    """Return an SVG of windows below each other.

    Args:
        panes: The windows.
        columns: Characters in a line; longer lines are cut.
        label: Text for those who cannot see the picture.
    """
    width = columns * CHAR_WIDTH + 2 * PADDING
    parts: list[str] = []
    top = 0.0
    for pane in panes:
        height = BAR + len(pane.lines) * LINE_HEIGHT + PADDING
        parts += _window(pane, width, top, height, columns)
        top += height + 12
    height = top - 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(label)}">\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _window(pane: Pane, width: float, top: float, height: float, columns: int) -> Iterable[str]:
    yield f'<rect x="0.5" y="{top + 0.5:.1f}" width="{width - 1:.1f}" height="{height - 1:.1f}" rx="8" fill="{BACKGROUND}" stroke="{FRAME}"/>'
    for number, color in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        yield f'<circle cx="{PADDING + 4 + 18 * number}" cy="{top + 18:.1f}" r="5" fill="{color}"/>'
    yield f'<text class="t" x="{width / 2:.0f}" y="{top + 22:.1f}" text-anchor="middle">{escape(pane.title)}</text>'
    console = Console(width=columns, force_terminal=True, color_system="truecolor", legacy_windows=False)
    for number, line in enumerate(pane.lines):
        text = line.text.copy()
        text.truncate(columns, overflow="ellipsis")
        y = top + BAR + number * LINE_HEIGHT + FONT_SIZE
        delay = "" if line.at is None else f' class="l" style="animation-delay:{line.at:.2f}s"'
        yield f'<text x="{PADDING}" y="{y:.1f}"{delay}>{"".join(_spans(text.render(console)))}</text>'


def _spans(segments: Iterable[Segment]) -> Iterable[str]:
    for segment in segments:
        if segment.text:
            attributes = _attributes(segment.style or Style.null())
            yield f"<tspan{attributes}>{escape(segment.text)}</tspan>" if attributes else escape(segment.text)


def _attributes(style: Style) -> str:
    color = style.bgcolor if style.reverse else style.color
    attributes = "" if color is None or color.is_default else f' fill="{color.get_truecolor(THEME).hex}"'
    if style.bold or style.reverse:
        attributes += ' font-weight="bold"'
    return attributes + (' opacity="0.6"' if style.dim else "")

"""The figures of the bench as bars, for the light and the dark theme.

They are drawn from `figures.json`, which is the output of:

    ./dev bench --json --only enqueue drain pick-up start > docs/pictures/figures.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "figures.json"

LABELS = {
    "embedded": "SQLite alone",
    "redis+sqlite": "Redis + SQLite",
    "redis+postgres": "Redis + PostgreSQL",
}
"""Names of the bench's targets."""

WIDTH, MARGIN, GAP, RADIUS = 880, 20, 32, 6
COLUMN = (WIDTH - 2 * MARGIN - GAP) / 2
NAMES, VALUES = 144, 68
"""Widths in which the names of the targets and the values of the bars stand."""
BAR, PITCH, HEAD, FOOT = 16, 26, 46, 34
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Theme:
    """Colors of the dashboard in a theme."""

    background: str
    border: str
    text: str
    muted: str
    bar: str


THEMES = {
    "light": Theme("#ffffff", "#dcdfe3", "#1c2024", "#5b636c", "#2458c5"),
    "dark": Theme("#15181b", "#343a40", "#e6e8ea", "#a0a8b0", "#86aef7"),
}


@dataclass(frozen=True)
class Panel:
    """Group of bars: one figure on each target. `name`: pattern of the figure's name in the bench's output."""

    title: str
    note: str
    name: str
    unit: str
    factor: float = 1.0


PANELS = (
    Panel(
        "Tasks finished per second",
        "2 processes of 100; more is better",
        r"drain of .*, 2 processes of 100",
        "",
    ),
    Panel("Tasks enqueued per second", "enqueue_many; more is better", r"enqueue_many of .*", ""),
    Panel(
        "From enqueue to the handler's first line",
        "idle worker, median; less is better",
        r"pick-up after 1.1 s of rest, from enqueue's return, p50",
        " ms",
    ),
    Panel(
        "From kill -9 of a worker to its successor's first task",
        "less is better",
        r"kill -9 of a worker until its successor runs a task",
        " ms",
        1000.0,
    ),
)


def charts() -> dict[str, str]:
    """Return the charts of the kept figures, by the name of their file."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return {f"bench-{name}": draw(figures, theme) for name, theme in THEMES.items()}


def draw(figures: dict[str, Any], theme: Theme) -> str:
    """Return an SVG with a panel for each figure, and a line about the machine.

    Args:
        figures: The output of `./dev bench --json`.
        theme: Its colors.
    """
    panels = [(panel, list(_values(panel, figures))) for panel in PANELS]
    rows = max(len(values) for _, values in panels)
    panel_height = HEAD + rows * PITCH + 14
    height = MARGIN + panel_height * ((len(panels) + 1) // 2) + FOOT
    parts: list[str] = []
    for number, (panel, values) in enumerate(panels):
        left = MARGIN + (number % 2) * (COLUMN + GAP)
        parts += _panel(panel, values, left, MARGIN + (number // 2) * panel_height)
    parts.append(f'<text class="m" x="{MARGIN}" y="{height - 16}">{escape(conditions(figures))}</text>')
    label = "; ".join(f"{panel.title}: {_spoken(panel, values)}" for panel, values in panels)
    style = (
        f"text {{ font: 13px {FONT}; fill: {theme.text}; font-variant-numeric: tabular-nums; }} "
        f".h {{ font-size: 14px; font-weight: 600; }} .m {{ font-size: 12px; fill: {theme.muted}; }} "
        f".b {{ fill: {theme.bar}; }} .f {{ fill: {theme.background}; stroke: {theme.border}; }}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(label)}">\n<style>{style}</style>\n'
        f'<rect class="f" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="{RADIUS}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def conditions(figures: dict[str, Any]) -> str:
    """Return on what machine, how loaded, and how precisely the figures were measured."""
    machine = figures["machine"]
    busy = max(target["busy_before"] for target in figures["targets"].values())
    size = "quick run, one round" if machine.get("quick") else "medians of three rounds"
    return (
        f"agentexec {machine['commit']}, Python {machine['python']}, {machine['system']}, {machine['cpus']} CPUs, "
        f"up to {busy:.0f}% busy before; {size}"
    )


def _values(panel: Panel, figures: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the figure of each target that has it."""
    for target, label in LABELS.items():
        for figure in figures["targets"].get(target, {}).get("figures", ()):
            if re.fullmatch(panel.name, figure["name"]):
                yield label, figure["value"] * panel.factor


def _panel(panel: Panel, values: Sequence[tuple[str, float]], left: float, top: float) -> Iterator[str]:
    yield f'<text class="h" x="{left:g}" y="{top + 14:g}">{escape(panel.title)}</text>'
    yield f'<text class="m" x="{left:g}" y="{top + 32:g}">{escape(panel.note)}</text>'
    most = max((value for _, value in values), default=1.0)
    for row, (label, value) in enumerate(values):
        y = top + HEAD + row * PITCH
        length = max(2.0, (COLUMN - NAMES - VALUES) * value / most)
        yield f'<text x="{left:g}" y="{y + 12.5:g}">{escape(label)}</text>'
        yield f'<rect class="b" x="{left + NAMES:g}" y="{y:g}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        end = left + NAMES + length + 8
        yield f'<text x="{end:.1f}" y="{y + 12.5:g}">{_number(value)}{panel.unit}</text>'


def _spoken(panel: Panel, values: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{label} {_number(value)}{panel.unit}" for label, value in values)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"

"""Report: a plain table, or JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.goals import Result

HEADINGS = ("measure", "value", "unit", "of floor", "goal", "")
VERDICTS = {True: "met", False: "NOT MET", None: ""}


@dataclass
class Section:
    """Figures of one target."""

    target: str
    servers: str
    busy: float
    """CPU usage just before the measurements, in percent."""
    rows: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def machine() -> dict[str, Any]:
    """Return the facts about the machine and the code."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def busy() -> float:
    """Return the CPU usage in percent; if it is more than a few percent, figures mean little."""
    return psutil.cpu_percent(interval=1.0)


def as_text(facts: dict[str, Any], sections: Sequence[Section]) -> str:
    """Return aligned tables, one for each target."""
    load = " ".join(f"{load:.2f}" for load in facts["load"])
    lines = [
        f"agentexec {facts['commit']}, Python {facts['python']}, {facts['system']}, {facts['cpus']} CPUs; "
        f"load average before the run: {load}"
    ]
    widths = _widths([_cells(row) for section in sections for row in section.rows])
    for section in sections:
        title = f"{section.target}: {section.servers}" if section.servers else section.target
        lines += ["", f"{title}; CPUs {section.busy:.0f} % busy before"]
        lines.append(_line(HEADINGS, widths))
        lines += [_line(_cells(row), widths) for row in section.rows]
        lines += [f"FAILED  {failure}" for failure in section.failures]
    return "\n".join(lines)


def as_json(facts: dict[str, Any], sections: Sequence[Section]) -> str:
    """Return all figures with their samples."""
    return json.dumps(
        {
            "machine": facts,
            "targets": {
                section.target: {
                    "servers": section.servers,
                    "busy_before": section.busy,
                    "figures": [_as_data(row) for row in section.rows],
                    "failures": section.failures,
                }
                for section in sections
            },
        },
        indent=2,
        ensure_ascii=False,
    )


def _as_data(row: Result) -> dict[str, Any]:
    figure = row.figure
    return {
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "samples": list(figure.samples),
        "floor": row.floor,
        "floor_name": row.floor_name,
        "ratio": row.ratio,
        "goal": str(row.goal) if row.goal else None,
        "met": row.met,
    }


def _cells(row: Result) -> tuple[str, ...]:
    figure = row.figure
    name = f"{figure.name} ({figure.note})" if figure.note else figure.name
    ratio = f"{row.ratio:.2f} x {_number(row.floor)}" if row.ratio is not None and row.floor else ""
    return name, _number(figure.value), figure.unit, ratio, str(row.goal or ""), VERDICTS[row.met]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    # Numbers are aligned to the right.
    padded = [
        cell.rjust(width) if place in (1, 3) else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "(unknown commit)"
    return described.stdout.strip()

"""Contexts and results as lines for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from agentexec.cli.output import one_line
from agentexec.values.presentation import Presenter, read_json

if TYPE_CHECKING:
    from agentexec.activity.queries.contents import TaskContents

LINE = 88
"""Characters up to which a value is shown on one line."""


def value_lines(name: str, value: Any) -> Iterator[str]:
    """Yield the lines that show a value: one if it is short, otherwise its text or JSON, indented."""
    lines = value.splitlines() if isinstance(value, str) else []
    short = json.dumps(value, ensure_ascii=False)
    if len(short) <= LINE and len(lines) <= 1:
        yield f"{name + ':':<10} {one_line(value if isinstance(value, str) and value else short)}"
        return
    yield f"{name}:"
    for line in lines or json.dumps(value, ensure_ascii=False, indent=2).splitlines():
        yield f"  {one_line(line)}"


def contents_lines(found: TaskContents, presenter: Presenter) -> Iterator[str]:
    """Yield the lines that show a task's context and result."""
    if found.context is not None:
        yield from value_lines("context", presenter.present(read_json(found.context)))
    if found.result is not None:
        yield from value_lines("result", presenter.present(read_json(found.result)))
    elif found.expired:
        yield "result:    expired; AGENTEXEC_RESULT_TTL is the time for which results are kept"

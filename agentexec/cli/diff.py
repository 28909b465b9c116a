"""The difference between two tasks, which `agentexec show` prints on request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentexec.cli.database import session
from agentexec.cli.output import format_table, one_line
from agentexec.values.presentation import Presenter

if TYPE_CHECKING:
    from agentexec.client.comparison import ComparedStepSchema, ComparedTaskSchema

SIGNS = {"removed": "-", "added": "+"}
CELL = 60
"""Characters of a value in the table."""


class Difference:
    """Two tasks side by side: outcome, steps, tokens, money; then the steps that only one of them has."""

    def __init__(
        self, first: UUID, second: UUID, scope: Mapping[str, str] | None, presenter: Presenter
    ) -> None:
        # Imported on use: the command line is parsed sooner without it.
        from agentexec.client.comparison import compare_tasks

        with session() as db:
            self._found = compare_tasks(db, first, second, scope, presenter)

    def lines(self) -> Iterator[str]:
        """Yield the lines for the terminal."""
        columns = [_facts(self._found.first), _facts(self._found.second)]
        rows = [[name, *(_cell(column[name]) for column in columns)] for name in columns[0]]
        yield from format_table(["", "FIRST", "SECOND"], rows)
        for step in self._found.steps:
            if step.change == "same":
                yield f"  {step.count} step{'' if step.count == 1 else 's'} of both"
            else:
                yield one_line(f"{SIGNS[step.change]} {step.path}: {_contents(step)}")
        if not self._found.is_complete:
            yield "  ... more steps, which were not compared"

    def as_json(self) -> dict[str, Any]:
        """Return the difference as JSON data."""
        found = self._found
        return {
            "first": _facts(found.first),
            "second": _facts(found.second),
            "steps": [step.model_dump(mode="json") for step in found.steps],
            "is_complete": found.is_complete,
        }


def _facts(task: ComparedTaskSchema) -> dict[str, Any]:
    return {
        "agent_id": str(task.agent_id),
        "task": task.task_name,
        "status": str(task.status),
        "result": task.result,
        "steps": task.steps,
        "requests": task.requests,
        "input_tokens": task.input_tokens,
        "output_tokens": task.output_tokens,
        "dollars": None if task.cost is None else round(task.cost, 6),
        "seconds": None if task.elapsed_seconds is None else round(task.elapsed_seconds, 1),
    }


def _contents(step: ComparedStepSchema) -> str:
    shown = step.contents
    parts = shown if isinstance(shown, list) and step.kind == "model" else [shown]
    return ", ".join(_part(part) for part in parts)


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.keys() == {"call", "arguments"}:
        return f"{part['call']}({part['arguments']})"
    return _cell(part, 200)


def _cell(value: Any, limit: int = CELL) -> str:
    text = (
        "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )
    text = one_line(text)
    return text if len(text) <= limit else f"{text[:limit]}…"


__all__ = ["Difference"]

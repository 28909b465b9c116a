"""The difference between two tasks, which `agentexec show` prints on request."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentexec.cli.database import session
from agentexec.cli.output import format_table, one_line
from agentexec.values.presentation import Presenter, read_json

if TYPE_CHECKING:
    from agentexec.cli.task_view import TaskView
    from agentexec.journal.diffs import StepChange

SIGNS = {"same": " ", "removed": "-", "added": "+"}
CELL = 60
"""Characters of a value in the table."""


class Difference:
    """Two tasks side by side: outcome, steps, tokens, money; then the steps that only one of them has."""

    def __init__(
        self, first: UUID, second: UUID, scope: Mapping[str, str] | None, presenter: Presenter
    ) -> None:
        # Imported on use: the command line is parsed sooner without them.
        from agentexec.cli.task_view import load_view
        from agentexec.journal.diffs import compare_steps

        with session() as db:
            self._views = [load_view(db, agent_id, scope) for agent_id in (first, second)]
            self._changes = compare_steps(db, first, second)
        self._presenter = presenter

    def lines(self) -> Iterator[str]:
        """Yield the lines for the terminal."""
        columns = [self._facts(view) for view in self._views]
        rows = [[name, *(_cell(column[name]) for column in columns)] for name in columns[0]]
        yield from format_table(["", "FIRST", "SECOND"], rows)
        for change, group in itertools.groupby(self._changes, key=lambda change: change.change):
            steps = list(group)
            if change == "same":
                yield f"  {len(steps)} step{'' if len(steps) == 1 else 's'} of both"
                continue
            for step in steps:
                yield one_line(f"{SIGNS[change]} {step.step.path}: {self._contents(step)}")

    def as_json(self) -> dict[str, Any]:
        """Return the difference as JSON data."""
        first, second = (self._facts(view) for view in self._views)
        steps = [
            {
                "change": change.change,
                "path": change.step.path,
                "kind": change.step.kind,
                "contents": self._presenter.present(change.step.contents),
            }
            for change in self._changes
        ]
        return {"first": first, "second": second, "steps": steps}

    def _facts(self, view: TaskView) -> dict[str, Any]:
        task, usage = view.activity, view.activity.usage
        result = view.contents.result
        side = "removed" if view is self._views[0] else "added"
        return {
            "agent_id": str(task.agent_id),
            "task": task.task_name,
            "status": str(task.status),
            "result": None if result is None else self._presenter.present(read_json(result)),
            "steps": sum(change.change in ("same", side) for change in self._changes),
            "requests": usage.requests,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "dollars": None if task.cost is None else round(task.cost, 6),
            "seconds": None if task.elapsed_seconds is None else round(task.elapsed_seconds, 1),
        }

    def _contents(self, change: StepChange) -> str:
        shown = self._presenter.present(change.step.contents)
        parts = shown if isinstance(shown, list) and change.step.kind == "model" else [shown]
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

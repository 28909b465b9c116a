"""Comparison of two tasks, such as a task and its fork: outcome, steps, tokens, money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from agentexec.activity.queries.contents import contents
from agentexec.activity.queries.detail import detail
from agentexec.journal.diffs import MAX_FACTS, StepChange, compare_steps, read_contents
from agentexec.task import Status
from agentexec.values.presentation import Presenter, read_json


class ComparedTaskSchema(BaseModel):
    """Task of a comparison."""

    agent_id: UUID
    task_name: str
    status: Status
    result: Any = Field(
        default=None, description="Result without secrets, cut if it is long; null without one."
    )
    steps: int = Field(description="Number of its steps: responses of models, and values of calls.")
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None = Field(
        default=None, description="Estimated cost in dollars; null if a price is unknown."
    )
    elapsed_seconds: float | None = None


class ComparedStepSchema(BaseModel):
    """Step of one of the tasks of a comparison, or steps in a row that both have."""

    change: Literal["same", "removed", "added"] = Field(
        description="same: both have it; removed: only the first task; added: only the second one."
    )
    path: str | None = Field(
        default=None, description="Run or call within the task; null for steps in a row."
    )
    kind: str | None = Field(default=None, description="model, outcome or raised; null for steps in a row.")
    contents: Any = Field(default=None, description="Texts and calls of a response, or the value of a call.")
    count: int = Field(default=1, description="Number of steps in a row that both have.")


class ComparisonSchema(BaseModel):
    """Two tasks side by side, and the steps that only one of them has."""

    first: ComparedTaskSchema
    second: ComparedTaskSchema
    steps: list[ComparedStepSchema] = Field(
        description="In order; steps in a row that both have are one entry."
    )
    is_complete: bool = Field(
        description="False if there are more steps, or more that differ, than are shown."
    )


def compare_tasks(
    db: Session,
    first: UUID,
    second: UUID,
    metadata_filter: Mapping[str, Any] | None,
    presenter: Presenter,
    *,
    facts: int = MAX_FACTS,
    shown: int = MAX_FACTS,
) -> ComparisonSchema:
    """Return the comparison of two tasks.

    Args:
        db: Session on the database.
        first: ID of the first task.
        second: ID of the second one.
        metadata_filter: Labels that both must have.
        presenter: Hides secrets, and cuts each value.
        facts: Steps of each task that are compared, the first ones.
        shown: Steps of which the contents are shown.

    Raises:
        ActivityNotFoundError: One of the tasks does not exist, or lacks the labels.
    """
    details = [detail(db, agent_id, metadata_filter=metadata_filter) for agent_id in (first, second)]
    # One more than is shown, to know whether there are more.
    changes = compare_steps(db, first, second, facts + 1)
    sides = [
        _side(db, task, changes, side, presenter)
        for task, side in zip(details, ("removed", "added"), strict=True)
    ]
    entries = _folded(changes)
    is_complete = max(side.steps for side in sides) <= facts and len(entries) <= shown
    return ComparisonSchema(
        first=sides[0],
        second=sides[1],
        steps=_shown(db, first, second, entries[:shown], presenter),
        is_complete=is_complete,
    )


def _side(
    db: Session, task: Any, changes: Sequence[StepChange], side: str, presenter: Presenter
) -> ComparedTaskSchema:
    result = contents(db, task.agent_id).result
    return ComparedTaskSchema(
        agent_id=task.agent_id,
        task_name=task.task_name,
        status=task.status,
        result=None if result is None else presenter.present(read_json(result)),
        steps=sum(change.change in ("same", side) for change in changes),
        requests=task.usage.requests,
        input_tokens=task.usage.input_tokens,
        output_tokens=task.usage.output_tokens,
        cost=task.cost,
        elapsed_seconds=task.elapsed_seconds,
    )


def _folded(changes: Sequence[StepChange]) -> list[tuple[StepChange, int]]:
    """Return the changes, with steps in a row that both tasks have as one, and their number."""
    found: list[tuple[StepChange, int]] = []
    for change in changes:
        if change.change == "same" and found and found[-1][0].change == "same":
            found[-1] = change, found[-1][1] + 1
        else:
            found.append((change, 1))
    return found


def _shown(
    db: Session, first: UUID, second: UUID, entries: Sequence[tuple[StepChange, int]], presenter: Presenter
) -> list[ComparedStepSchema]:
    values = {
        side: read_contents(
            db, agent_id, {entry.step.position for entry, _ in entries if entry.change == side}
        )
        for side, agent_id in (("removed", first), ("added", second))
    }
    return [
        ComparedStepSchema(change="same", count=count)
        if change == "same"
        else ComparedStepSchema(
            change=change,
            path=step.path,
            kind=step.kind,
            contents=presenter.present(values[change].get(step.position)),
        )
        for (change, step), count in entries
    ]

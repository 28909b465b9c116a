"""Endpoints about forks: the turns of a task, a fork at a turn, and the comparison of two tasks."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from agentexec.activity.queries.detail import detail
from agentexec.client.comparison import ComparisonSchema, compare_tasks
from agentexec.client.fork import MAX_MODEL, fork_sync
from agentexec.config import CONF
from agentexec.errors import AccessDeniedError
from agentexec.journal.cuts import list_runs
from agentexec.task import Status
from agentexec.values.presentation import Bounds, Presenter
from agentexec.web.access import Actor, TaskReader
from agentexec.web.endpoints import Endpoints
from agentexec.web.parameters import reading_session
from agentexec.web.schemas import StartedSchema

ENDPOINTS = Endpoints("Forks")

MAX_TEXT = 100_000
"""Characters of instructions or a message."""

MAX_RUN = 255
"""Characters of the path of a run."""

COMPARED = 1_000
"""Steps of each task that are compared, the first ones."""

SHOWN = 200
"""Entries of a comparison."""

STEP = Bounds(total=4_000, text=2_000, entries=50)
"""Bounds of a result or step in a comparison."""


class RunSchema(BaseModel):
    """Run of an agent within a task, and the turns at which the task can be forked."""

    run: str = Field(description='Path of the run, such as "Writer#1".')
    turns: int = Field(description="Number of its recorded turns.")
    last: int = Field(description="The last turn at which a fork can begin; the first one is 1.")


class ForkBody(BaseModel):
    """Turn at which a task is forked, and what the fork changes."""

    model_config = ConfigDict(extra="forbid")

    at: int = Field(ge=1, le=1_000_000, description="The first turn that the new task takes itself, from 1.")
    run: str | None = Field(
        default=None, max_length=MAX_RUN, description="Path of the run, if the task has several."
    )
    instructions: str | None = Field(
        default=None, max_length=MAX_TEXT, description="Instructions of the agent from the turn on."
    )
    model: str | None = Field(
        default=None, max_length=MAX_MODEL, description="Name of its model from the turn on."
    )
    input: str | None = Field(
        default=None, max_length=MAX_TEXT, description="Message that the agent reads right before the turn."
    )


@ENDPOINTS.get("/activity/{agent_id}/runs", summary="List the runs of a task")
def list_task_runs(agent_id: UUID, caller: TaskReader) -> list[RunSchema]:
    """List the runs of agents that a task has recorded, the first 100, with the turns at which it can be forked."""
    with reading_session() as db:
        task = detail(db, agent_id, metadata_filter=caller.metadata_filter)
        # After the last turn of a complete run nothing is left to do.
        more = int(task.status is not Status.COMPLETE)
        return [RunSchema(run=run, turns=turns, last=turns + more) for run, turns in list_runs(db, agent_id)]


@ENDPOINTS.post("/activity/{agent_id}/fork", summary="Fork a task at a turn")
def fork_activity(agent_id: UUID, body: ForkBody, caller: Actor) -> StartedSchema:
    """Queue a new task that begins with what a task has recorded before a turn, and goes on for real with what is changed."""
    task = fork_sync(agent_id, **body.model_dump(), metadata_filter=caller.metadata_filter, by=caller.name)
    return StartedSchema(agent_id=task.agent_id)


@ENDPOINTS.get("/activity/{agent_id}/diff/{other_id}", summary="Compare two tasks")
def compare_activities(agent_id: UUID, other_id: UUID, caller: TaskReader) -> ComparisonSchema:
    """Compare a task with another one, such as its fork: outcome, tokens, money, and the steps that only one of them has.

    The first 1,000 steps of each are compared, and up to 200 entries shown, without secrets and cut. Not for read tokens.
    """
    presenter = Presenter(CONF.secrets, STEP, "see `agentexec show --diff --full`")
    with reading_session() as db:
        # Another tenant is told that there is no such task, whatever it may not see.
        detail(db, agent_id, metadata_filter=caller.metadata_filter)
        if caller.expires_at is not None:
            raise AccessDeniedError("A read token does not show what a task has recorded.")
        return compare_tasks(
            db, agent_id, other_id, caller.metadata_filter, presenter, facts=COMPARED, shown=SHOWN
        )

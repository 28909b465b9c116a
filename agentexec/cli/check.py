"""`agentexec check`: replay open and recent runs against the code at hand, before it is deployed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from uuid import UUID

import typer

from agentexec.cli.options import AsJson, Metadata, TaskName, parse_labels, parse_since
from agentexec.cli.output import echo_json, one_line
from agentexec.errors import AgentexecError, UsageError

if TYPE_CHECKING:
    from agentexec.registry import Registry


class Registered(NamedTuple):
    """The tasks of the user's module, in the place of its pool."""

    registry: Registry | None


class Checked(NamedTuple):
    """A run that was checked. `divergence` says how it would diverge, `new_step` which step the code adds; None if not."""

    agent_id: UUID
    task_name: str
    status: str
    divergence: str | None
    new_step: str | None


def run(
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Also runs that completed since, like 2h, 7d or 2026-11-28T08:00."),
    ] = "1d",
    task_name: TaskName = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option(help="Number of runs, the newest first.", min=1)] = 200,
    as_json: AsJson = False,
) -> None:
    """Replay open and recent runs against the module (--app), and say which would diverge. For CI, before a deploy.

    No model and no tool is called, and nothing is written. Each replay ends at its last recorded step, or at the first step
    that the code has added before it: such a run is named too, because a worker would make that step. What a handler
    does outside of runs, tools and steps before that is done, as in every attempt of a task.

    The exit code is 1 if a run would diverge, 0 if none would.
    """
    from agentexec.runtime import RUNTIME

    rows = _find_runs(parse_since("--since", since), task_name, parse_labels(metadata), limit)
    served = [row for row in rows if RUNTIME.registry_of(row.agent_type) is not None]
    if rows and not served:
        raise UsageError("No module with these tasks is loaded; name it with --app.")
    checked = list(_check(served))
    if as_json:
        _echo_as_json(checked, len(rows) - len(served))
    else:
        _echo(checked, len(rows) - len(served))
    if any(found.divergence is not None for found in checked):
        raise typer.Exit(1)


def _echo_as_json(checked: Sequence[Checked], skipped: int) -> None:
    import json

    runs = [{**found._asdict(), "agent_id": str(found.agent_id)} for found in checked]
    echo_json(json.dumps({"checked": len(checked), "skipped": skipped, "runs": runs}))


def _echo(checked: Sequence[Checked], skipped: int) -> None:
    diverging = growing = 0
    for found in checked:
        problem = found.divergence
        if problem is not None:
            diverging += 1
        elif found.new_step is not None:
            growing += 1
            problem = f"new step: {found.new_step}"
        if problem is not None:
            typer.echo(one_line(f"{found.agent_id} {found.task_name} {found.status}: {problem}"))
    added = f", {growing} would make a new step" if growing else ""
    others = f" {skipped} of other modules skipped." if skipped else ""
    typer.echo(f"{len(checked)} run(s) checked, {diverging} would diverge{added}.{others}")


def _find_runs(since: datetime, task_name: str | None, labels: Any, limit: int) -> Sequence[Any]:
    from agentexec.client.run_records import find_runs
    from agentexec.db.transactions import reading
    from agentexec.runtime import RUNTIME

    with reading(RUNTIME.engine) as connection:
        return find_runs(connection, since, task_name, labels, limit)


def _check(rows: Sequence[Any]) -> Iterator[Checked]:
    for row in rows:
        yield Checked(row.agent_id, row.agent_type, row.status.name.lower(), *_outcome(row))


def _outcome(row: Any) -> tuple[str | None, str | None]:
    """Return how a run would diverge, and else which step the code adds to it."""
    from agentexec.client.run_records import read_run
    from agentexec.db.transactions import reading
    from agentexec.runtime import RUNTIME
    from agentexec.testing.run_replay import replay_record

    try:
        with reading(RUNTIME.engine) as connection:
            record = read_run(connection, row.agent_id, lambda value: value)
        pool = Registered(RUNTIME.registry_of(row.agent_type))
        done = replay_record(record, pool, any_input=True, stops=True)
    except AgentexecError as error:
        return str(error), None
    if done.divergence is not None:
        return str(done.divergence), None
    return None, done.new_step

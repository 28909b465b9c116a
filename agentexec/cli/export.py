"""`agentexec export`: a recorded run as a file, for offline tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import agentexec as ax
from agentexec.cli.options import AgentId, MetadataScope, parse_labels, parse_task_id
from agentexec.errors import UsageError

if TYPE_CHECKING:
    from agentexec.client.run_records import RunRecord


def run(
    agent_id: AgentId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write instead of printing.")
    ] = None,
    metadata: MetadataScope = None,
) -> None:
    """Print what a task has recorded as JSON, for `ax.testing.replay`. Secrets are hidden.

    If the module (--app) has the task, it is replayed offline once, and the inputs of its models are part of the file: a
    later test can then show what has changed.
    """
    # Imported on use: the command line is parsed sooner without them.
    from agentexec.client.run_records import dump_run, read_run
    from agentexec.db.transactions import reading
    from agentexec.runtime import RUNTIME
    from agentexec.values.presentation import Presenter

    present = Presenter(ax.CONF.secrets).present
    with reading(RUNTIME.engine) as connection:
        record = read_run(connection, parse_task_id(agent_id), present, parse_labels(metadata))
    if RUNTIME.registry_of(record["task"]) is not None:
        record = _with_inputs(record)
    if output is None:
        typer.echo(dump_run(record), nl=False)
        return
    try:
        output.write_text(dump_run(record), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot write the file {output}: {error.strerror}.") from None


def _with_inputs(record: RunRecord) -> RunRecord:
    """Return a record with the inputs that the code at hand gives to its models, if it goes the recorded way."""
    from agentexec.cli.check import Registered
    from agentexec.runtime import RUNTIME
    from agentexec.testing.run_replay import replay_record

    registry = RUNTIME.registry_of(record["task"])
    done = replay_record(record, Registered(registry), stops=True)
    if done.divergence is not None:
        typer.echo(f"agentexec: The file holds no inputs. {done.divergence}", err=True)
        return record
    return {**record, "inputs": done.inputs}

"""`agentexec reject`: refuse a waiting call."""

from __future__ import annotations

from typing import Annotated

import typer

import agentexec as ax
from agentexec.arguments.actors import source_on_host
from agentexec.cli.decision import By, CallId, Reason, report
from agentexec.cli.options import AgentId, MetadataScope, parse_labels


def run(
    agent_id: AgentId,
    call_id: CallId,
    by: By,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Reason, told to the model.")] = None,
    reason: Reason = None,
    metadata: MetadataScope = None,
) -> None:
    """Reject a call that waits for approval. The task continues without it.

    The exit code is 1 if the call was already decided or has expired, or the task has ended.
    """
    decided = ax.reject_sync(
        agent_id,
        call_id,
        message=message,
        reason=reason,
        metadata_filter=parse_labels(metadata),
        by=by,
        source=source_on_host("cli"),
    )
    report("Rejected", agent_id, call_id, decided=decided)

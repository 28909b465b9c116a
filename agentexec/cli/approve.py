"""`agentexec approve`: let a waiting call run."""

from __future__ import annotations

from typing import Annotated

import typer

import agentexec as ax
from agentexec.arguments.actors import source_on_host
from agentexec.cli.decision import By, CallId, Expires, Reason, Scope, Where, read_object, report, scope_of
from agentexec.cli.options import AgentId, MetadataScope, parse_duration, parse_labels
from agentexec.errors import UsageError


def run(
    agent_id: AgentId,
    call_id: CallId,
    by: By,
    arguments: Annotated[
        str | None,
        typer.Option(
            "--arguments",
            metavar="JSON",
            help="Arguments for the call instead of the model's, as a JSON object or @FILE.",
        ),
    ] = None,
    all_like_it: Annotated[
        bool, typer.Option("--all-like-it", help="Approve later calls like this one too, without asking.")
    ] = False,
    where: Where = None,
    any_arguments: Annotated[
        bool, typer.Option("--any-arguments", help="With --all-like-it: whatever their arguments.")
    ] = False,
    scope: Scope = None,
    expires: Expires = None,
    reason: Reason = None,
    metadata: MetadataScope = None,
) -> None:
    """Approve a call that waits for approval. The task continues with it.

    The exit code is 1 if the call was already decided or has expired, or the task has ended.
    """
    rule = None
    if all_like_it:
        if where and any_arguments:
            raise UsageError("--any-arguments takes every call; leave out --where.")
        rule = ax.AllLikeIt(
            [] if any_arguments else where,
            scope_of(scope),
            parse_duration("--expires", expires or "1d"),
        )
    elif where or any_arguments or scope or expires:
        raise UsageError("--where, --any-arguments, --for and --expires are for --all-like-it.")
    decided = ax.approve_sync(
        agent_id,
        call_id,
        arguments=None if arguments is None else read_object("--arguments", arguments),
        rule=rule,
        reason=reason,
        metadata_filter=parse_labels(metadata),
        by=by,
        source=source_on_host("cli"),
    )
    report("Approved", agent_id, call_id, decided=decided)

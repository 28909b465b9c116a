"""`agentexec approvals`: the calls that wait for a person, those that are decided, and the rules that decide."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import agentexec as ax
from agentexec.arguments.actors import source_on_host
from agentexec.cli.database import session
from agentexec.cli.decision import By, Expires, Reason, Scope, Where, scope_of
from agentexec.cli.options import MetadataScope, parse_duration, parse_labels, parse_task_id
from agentexec.cli.output import format_time, one_line
from agentexec.errors import UsageError
from agentexec.values.presentation import Presenter

if TYPE_CHECKING:
    from agentexec.approvals import ApprovalRuleSchema, ApprovalSchema

RULES = "rules"
ACTIONS = ("add", "revoke")


def run(
    by: By,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[AGENT_ID|rules]",
            help="Only calls of this task, or the rules that approve calls without asking.",
        ),
    ] = None,
    action: Annotated[
        str | None,
        typer.Argument(metavar="[add|revoke]", help="What to do with rules; by default, list them."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[TOOL|RULE_ID]", help="Tool of the new rule, or the rule to revoke."),
    ] = None,
    state: Annotated[
        str, typer.Option("--state", help="Calls that are pending, decided, or all.")
    ] = "pending",
    ended: Annotated[
        bool, typer.Option("--ended", help="With rules: those too that have expired or were revoked.")
    ] = False,
    where: Where = None,
    scope: Scope = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="AGENT_ID", help="With rules add: the task of the rule.")
    ] = None,
    expires: Expires = None,
    reason: Reason = None,
    metadata: MetadataScope = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the calls that wait for approval, oldest first, or the rules that approve calls without asking.

    Texts that look like secrets are hidden; --json has the arguments as they are.

    `approvals rules add TOOL` makes a rule, for any arguments without --where; `approvals rules revoke RULE_ID` ends one.
    """
    labels = parse_labels(metadata)
    if what != RULES:
        if action is not None:
            raise UsageError(f"There is no action {action} here; list rules with: agentexec approvals rules.")
        _list_calls(what, state, labels, as_json)
    elif action is None:
        _list_rules(labels, as_json, ended=ended)
    elif action not in ACTIONS or name is None:
        raise UsageError("Write: agentexec approvals rules, rules add TOOL, or rules revoke RULE_ID.")
    elif action == "add":
        rule_id = ax.approvals.add_rule_sync(
            name,
            where or [],
            scope=scope_of(scope),
            task=task,
            expires=parse_duration("--expires", expires or "1d"),
            reason=reason,
            metadata_filter=labels,
            by=by,
            source=source_on_host("cli"),
        )
        typer.echo(str(rule_id))
    else:
        if not ax.approvals.revoke_rule_sync(name, metadata_filter=labels, by=by):
            typer.echo(f"agentexec: Rule {name} has ended before.", err=True)
            raise typer.Exit(1)
        typer.echo(f"Revoked rule {name}.")


def _list_calls(agent_id: str | None, state: str, labels: dict[str, str] | None, as_json: bool) -> None:
    with session() as db:
        found = ax.approvals.list(
            db,
            agent_id and parse_task_id(agent_id),
            state=cast(Any, state),  # checked there
            metadata_filter=labels,
        )
    if as_json:
        typer.echo(json.dumps([approval.model_dump(mode="json") for approval in found]))
        return
    presenter = Presenter(ax.CONF.secrets)
    for approval in found:
        again = " again" if approval.kind == "repeat" else ""
        call = f"{approval.tool}({approval.arguments})"
        line = f"{approval.agent_id} {approval.call_id} {call}{again}{decision_text(approval)}"
        typer.echo(one_line(presenter.text(line)))
    if not found:
        typer.echo(
            "No calls wait for approval." if state == "pending" else "There are no such calls.", err=True
        )


def decision_text(approval: ApprovalSchema) -> str:
    """Return how a call was decided, by whom, from where and why, after a colon; nothing for one that waits."""
    if approval.status == "pending":
        return ""
    past = "" if approval.run is None else f" in run {approval.run}, which is over"
    text = f"{past}: {approval.status}"
    if approval.decided_arguments is not None:
        text += f" with changed arguments {approval.decided_arguments}"
    if approval.decided_by is not None:
        text += f" by {approval.decided_by}"
    if approval.decided_from is not None:
        text += f" ({approval.decided_from})"
    if approval.decided_at is not None:
        text += f" at {format_time(approval.decided_at)}"
    return text if approval.reason is None else f"{text}. Reason: {approval.reason}"


def _list_rules(labels: dict[str, str] | None, as_json: bool, *, ended: bool) -> None:
    with session() as db:
        found = ax.approvals.rules(db, ended=ended, metadata_filter=labels)
    if as_json:
        typer.echo(json.dumps([rule.model_dump(mode="json") for rule in found]))
        return
    presenter = Presenter(ax.CONF.secrets)
    for rule in found:
        typer.echo(one_line(presenter.text(_rule_text(rule))))
    if not found:
        typer.echo("No rules approve calls.", err=True)


def _rule_text(rule: ApprovalRuleSchema) -> str:
    conditions = (
        json.dumps(rule.arguments) if rule.where is None else ", ".join(rule.where) or "any arguments"
    )
    tasks = f"task {rule.agent_id}" if rule.agent_id is not None else rule.scope
    labels = "".join(f" {name}={value}" for name, value in sorted(rule.metadata.items()))
    who = "" if rule.created_by is None else f" by {rule.created_by}"
    end = f"until {format_time(rule.expires_at)}"
    if rule.revoked_at is not None:
        end = f"revoked {format_time(rule.revoked_at)}"
    why = "" if rule.reason is None else f". Reason: {rule.reason}"
    return f"{rule.rule_id} {rule.tool}({conditions}) for {tasks}{labels}{who}, {end}{why}"

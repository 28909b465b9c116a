"""Rules that approve calls without asking: made with an approval or alone, listed, and revoked."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field
from sqlalchemy.orm import Session

from agentexec.activity.queries.handle import find_task
from agentexec.activity.queries.labels import wanted_labels
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.arguments.actors import actor_name, checked_reason, checked_source
from agentexec.arguments.approval_policies import MAX_PATTERN
from agentexec.arguments.argument_patterns import Condition, parse_conditions
from agentexec.arguments.checks import check_integer, check_seconds, check_text, shown
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.errors import ApprovalRuleNotFoundError, UsageError
from agentexec.journal.approval_rules import MadeRule, NewRule, ScopeKind, find_rule, revoke
from agentexec.journal.approval_rules import list_rules as read_rules
from agentexec.journal.rule_answers import add_rule as save_rule
from agentexec.journal.rule_answers import answer_by_rule
from agentexec.journal.wake_ups import answered_by_queue, mark_woken
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Task, agent_id_of

log = logging.getLogger("agentexec.approvals")

DEFAULT_SECONDS = 86_400.0
"""Seconds for which a rule is in force by default."""

MAX_SECONDS = 366 * 86_400.0
"""Longest time for which a rule is in force."""

MAX_LISTED = 1000

RuleScope = Literal["task", "conversation"] | Mapping[str, Any]


@dataclass(frozen=True)
class AllLikeIt:
    """Rule that is made with an approval: later calls like the approved one, and those that wait, are approved without asking.

    Args:
        where: Conditions on the arguments, all of which a call must meet, such as `["amount<=100", "to=*@example.com"]`;
            arguments without a condition may be anything. By default, only calls with the same arguments.
        scope: Calls of which tasks: "task" for this task, "conversation" for the turns of the same `ax.conversation`, or, if the task is not
            a turn, for those that use the same session of the Agents SDK; or labels for those whose metadata has them, such
            as `{"tenant": "acme"}`.
        expires: Seconds, or a timedelta, for which the rule is in force: a day by default, a year at most.
        tool: Name of the tool, with `*` for any characters; by default that of the approved call.
    """

    where: Sequence[str] | None = None
    scope: RuleScope = "task"
    expires: float | timedelta = DEFAULT_SECONDS
    tool: str | None = None


class ApprovalRuleSchema(BaseModel):
    """Rule that approves calls without asking."""

    model_config = ConfigDict(defer_build=True)

    rule_id: UUID
    scope: Literal["task", "conversation", "metadata"]
    agent_id: UUID | None = Field(description="The task of its scope; null for other scopes.")
    metadata: dict[str, Any] = Field(description="Values that the metadata of its tasks has.")
    tool: str = Field(description="Name of the tool, with * for any characters.")
    where: list[str] | None = Field(
        description="Conditions on the arguments; null if only the same arguments match."
    )
    arguments: Any = Field(
        default=None, description="The only arguments that match, if there are no conditions."
    )
    created_at: datetime
    created_by: str | None = Field(description="Who made it.")
    created_from: str | None = Field(description="From where it was made.")
    reason: str | None
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def active(self) -> bool:
        """True until it expires or is revoked."""
        return self.revoked_at is None and self.expires_at > utc_now()


@sync_or_async
def list_rules(
    db: Session,
    *,
    ended: bool = False,
    limit: int = 100,
    metadata_filter: Mapping[str, Any] | None = None,
) -> list[ApprovalRuleSchema]:
    """Return the rules that approve calls without asking, newest first.

    Args:
        db: Session or AsyncSession on the database of the record; with an AsyncSession the call is awaited.
        ended: True for those too that have expired or were revoked.
        limit: Highest number of rules, 1 to 1000.
        metadata_filter: Only rules about tasks whose metadata has these values, and about no others.

    Returns:
        The rules.

    Raises:
        UsageError: An argument is invalid.
    """
    limit = check_integer("limit=", limit, maximum=MAX_LISTED)
    # Filtered here, because labels are JSON.
    rows = (row for row in read_rules(db, utc_now(), ended=ended) if _is_within(row, metadata_filter))
    return [_schema(row) for row in itertools.islice(rows, limit)]


async def add_rule(
    tool: str,
    where: Sequence[str],
    *,
    scope: RuleScope = "task",
    task: Task | UUID | str | None = None,
    expires: float | timedelta = DEFAULT_SECONDS,
    reason: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> UUID:
    """Approve calls of a tool without asking, from now on: later calls, and those that wait already.

    Args:
        tool: Name of the tool, with `*` for any characters.
        where: Conditions on the arguments, see `ax.AllLikeIt`; an empty list stands for any arguments.
        scope: Calls of which tasks, see `ax.AllLikeIt`.
        task: Handle or agent_id of the task, or of one of the conversation.
        expires: Seconds, or a timedelta, for which the rule is in force: a day by default, a year at most.
        reason: Why, for people.
        metadata_filter: Labels that the tasks must have; they become a part of the rule.
        by: Name of who makes it.
        source: From where; by default "code" and the name of this host.

    Returns:
        The id of the rule.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UsageError: An argument is invalid, or the task has no conversation.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    new = _checked(tool, where, scope, expires, reason, metadata_filter, by, source)
    return await RUNTIME.run_patiently(_add, task, new, metadata_filter, utc_now())


def add_rule_sync(
    tool: str,
    where: Sequence[str],
    *,
    scope: RuleScope = "task",
    task: Task | UUID | str | None = None,
    expires: float | timedelta = DEFAULT_SECONDS,
    reason: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> UUID:
    """Approve calls without asking: `add_rule` for code without an event loop, with the same arguments, result and errors."""
    new = _checked(tool, where, scope, expires, reason, metadata_filter, by, source)
    return wait_out(_add, task, new, metadata_filter, utc_now())


async def revoke_rule(
    rule_id: UUID | str, *, metadata_filter: Mapping[str, Any] | None = None, by: str | None = None
) -> bool:
    """End a rule. Calls that it has approved stay approved.

    Args:
        rule_id: Id of the rule.
        metadata_filter: Labels that the rule must have, as for `list_rules`.
        by: Name of who does it.

    Returns:
        False if it has ended before.

    Raises:
        ApprovalRuleNotFoundError: There is no such rule, or not with these labels.
        UsageError: An argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    name = None if by is None else actor_name(by)
    return await RUNTIME.run_patiently(_revoke, _parse_rule_id(rule_id), metadata_filter, name, utc_now())


def revoke_rule_sync(
    rule_id: UUID | str, *, metadata_filter: Mapping[str, Any] | None = None, by: str | None = None
) -> bool:
    """End a rule: `revoke_rule` for code without an event loop, with the same arguments, result and errors."""
    name = None if by is None else actor_name(by)
    return wait_out(_revoke, _parse_rule_id(rule_id), metadata_filter, name, utc_now())


def new_rule(
    like: Any,
    tool: str | None,
    metadata_filter: Mapping[str, Any] | None,
    by: str | None,
    source: str,
    reason: str | None,
) -> NewRule:
    """Return a rule with every value checked. Raises UsageError."""
    if not isinstance(like, AllLikeIt):
        raise UsageError(f"rule= must be an ax.AllLikeIt, not {shown(like)}.")
    kind, labels = _checked_scope(like.scope, metadata_filter)
    tool = tool if like.tool is None else check_text("tool=", like.tool, MAX_PATTERN)
    seconds = check_seconds("expires=", like.expires, minimum=1.0)
    if seconds > MAX_SECONDS:
        raise UsageError(f"A rule is in force for {MAX_SECONDS / 86_400:.0f} days at most.")
    conditions = None if like.where is None else [_text(item) for item in parse_conditions(like.where)]
    return NewRule(kind, labels, tool, conditions, seconds, by, source, reason)


def _checked(
    tool: str,
    where: Sequence[str],
    scope: RuleScope,
    expires: float | timedelta,
    reason: str | None,
    metadata_filter: Mapping[str, Any] | None,
    by: str | None,
    source: str | None,
) -> NewRule:
    if where is None:
        raise UsageError("where= must be a list of conditions; an empty one stands for any arguments.")
    like = AllLikeIt(where, scope, expires, check_text("tool=", tool, MAX_PATTERN))
    name = None if by is None else actor_name(by)
    return new_rule(like, tool, metadata_filter, name, checked_source(source), checked_reason(reason))


def _text(condition: Condition) -> str:
    return f"{condition.name}{condition.operator}{condition.value}"


def _checked_scope(scope: Any, metadata_filter: Mapping[str, Any] | None) -> tuple[ScopeKind, dict[str, Any]]:
    fence = dict(metadata_filter or {})
    wanted_labels(fence)
    if isinstance(scope, Mapping):
        if not wanted_labels(scope):
            raise UsageError("scope={} would be about the tasks of everybody; name a label.")
        if any(
            wanted_labels({name: fence[name]}) != wanted_labels({name: scope[name]})
            for name in fence.keys() & scope
        ):
            raise UsageError("scope= names another value of a label than metadata_filter=.")
        return "metadata", {**fence, **scope}
    if scope not in ("task", "conversation"):
        raise UsageError(
            f'scope= must be "task", "conversation" or labels like {{"tenant": "acme"}}, not {shown(scope)}.'
        )
    return scope, fence


def _add(
    task: Task | UUID | str | None, new: NewRule, metadata_filter: Mapping[str, Any] | None, now: datetime
) -> UUID:
    agent_id = None if task is None else agent_id_of(task)
    if agent_id is not None:
        find_task(RUNTIME.engine, agent_id, metadata_filter)
    rule, answered = save_rule(RUNTIME.engine, agent_id, new, now)
    wake_answered(answered)
    apply_rule(rule, now)
    return rule.row.rule_id


def apply_rule(rule: MadeRule, now: datetime) -> None:
    """Answer the open questions that a saved rule matches: those of very many tasks. Whoever asks later finds the rule."""
    with RUNTIME.best_effort(log, "Questions that rule %s answers may still wait.", rule.row.rule_id):
        answered, place = answer_by_rule(RUNTIME.engine, rule, now, None)
        wake_answered(answered)
        while place is not None:
            answered, place = answer_by_rule(RUNTIME.engine, rule, now, place)
            wake_answered(answered)


def wake_answered(agent_ids: Sequence[UUID]) -> None:
    """Tell the queues of tasks whose questions have been answered."""
    for chunk in chunks(agent_ids):
        with RUNTIME.best_effort(log, "%d task(s) resume when it is back.", len(chunk)):
            for queue, ready in answered_by_queue(RUNTIME.engine, chunk).items():
                RUNTIME.backend.make_ready(queue, ready)
                mark_woken(RUNTIME.engine, "approval", ready)


def _revoke(rule_id: UUID, metadata_filter: Mapping[str, Any] | None, by: str | None, now: datetime) -> bool:
    rule = find_rule(RUNTIME.engine, rule_id)
    if rule is None or not _is_within(rule, metadata_filter):
        raise ApprovalRuleNotFoundError(rule_id)
    return revoke(RUNTIME.engine, rule_id, by, now)


def _is_within(row: Any, metadata_filter: Mapping[str, Any] | None) -> bool:
    """Return True if a rule is about tasks with these labels only."""
    return not metadata_filter or {*wanted_labels(metadata_filter)} <= {*wanted_labels(row.labels or {})}


def _parse_rule_id(rule_id: Any) -> UUID:
    try:
        return rule_id if isinstance(rule_id, UUID) else UUID(str(rule_id))
    except ValueError:
        raise UsageError(
            f"{shown(rule_id)} is not the id of a rule; `agentexec approvals rules` lists them."
        ) from None


def _schema(row: Any) -> ApprovalRuleSchema:
    columns = ("rule_id", "scope", "agent_id", "tool", "created_at", "created_by", "created_from", "reason")
    return ApprovalRuleSchema.model_construct(
        **{name: getattr(row, name) for name in columns},
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        metadata=row.labels or {},
        where=_read(row.conditions),
        arguments=_read(row.arguments),
    )


def _read(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):  # somebody else has written it
        return None

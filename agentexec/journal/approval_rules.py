"""Rules that approve calls like one that a person has approved, within a task, a conversation or the tasks with a label."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from agentexec.activity.changes.session_use import PREFIX as SESSION_LABEL
from agentexec.activity.changes.statements import ACTIVITY, LABEL
from agentexec.activity.models import Activity
from agentexec.activity.queries.labels import driving_label_condition, label_rows, metadata_conditions
from agentexec.arguments.argument_patterns import (
    Condition,
    matches_glob,
    meets,
    parse_conditions,
    read_arguments,
)
from agentexec.arguments.tool_arguments import same_arguments
from agentexec.db.transactions import reading, writing
from agentexec.errors import UsageError
from agentexec.journal.models import ApprovalRule
from agentexec.task import new_agent_id

RULE: Any = ApprovalRule.__table__

ScopeKind = Literal["task", "conversation", "metadata"]

TURN_LOCK = "conversation:"
"""Begin of the lock that the turns of a conversation have."""

MAX_RULES = 1000
"""Rules of a task's scopes that are compared with one question, the newest first."""

KEPT_DAYS = 90
"""Days for which a rule is kept after its end."""


class NewRule(NamedTuple):
    """A rule as it was asked for, with every value checked.

    `conditions` None stands for the arguments of the call that is approved. `labels` are what the metadata of its tasks has.
    """

    scope: ScopeKind
    labels: Mapping[str, Any]
    tool: str | None
    conditions: list[str] | None
    seconds: float
    by: str | None
    source: str
    reason: str | None


class MadeRule(NamedTuple):
    """A new rule: its row, and the conditions on the activities in its scope."""

    row: ApprovalRule
    its_tasks: list[ColumnElement[bool]]


def find_rules(connection: Connection, agent_id: UUID, now: datetime) -> list[Any]:
    """Return the rules in force for a task, the newest first."""
    labels = _labels_of(connection, agent_id)
    keys = [_task_key(agent_id), *(_label_key(name, value) for name, value in labels)]
    lock_key = _turn_lock_of(connection, agent_id)
    if lock_key is not None:
        keys.append(_label_key(TURN_LOCK, lock_key))
    query = (
        select(RULE)
        .where(RULE.c.scope_key.in_(keys), RULE.c.expires_at > now, RULE.c.revoked_at.is_(None))
        .order_by(RULE.c.rule_id.desc())
        .limit(MAX_RULES)
    )
    return [rule for rule in connection.execute(query) if has_labels(labels, rule.labels)]


def matches(rule: Any, tool: str, arguments: str) -> bool:
    """Return True if a rule is about a call. Arguments that cannot be parsed match no rule."""
    if not matches_glob(rule.tool, tool):
        return False
    found = read_arguments(arguments)
    if found is None:
        return False
    if rule.conditions is None:
        return rule.arguments is not None and same_arguments(rule.arguments, arguments)
    try:
        return all(meets(found, condition) for condition in _read_conditions(rule.conditions))
    except (ValueError, RecursionError, UsageError):  # of a row that somebody else has written
        return False


@functools.lru_cache(maxsize=MAX_RULES)
def _read_conditions(stored: str) -> Sequence[Condition]:
    return parse_conditions(json.loads(stored))


def has_labels(labels: set[tuple[str, str]], wanted: Mapping[str, Any] | None) -> bool:
    """Return True if a task's labels include those of a rule. A rule whose labels cannot be read has no tasks."""
    return wanted is not None and labels.issuperset(label_rows(wanted))


def make_rule(
    connection: Connection, agent_id: UUID | None, new: NewRule, call: tuple[str, str] | None, now: datetime
) -> MadeRule:
    """Return a rule as it is to be saved.

    Args:
        connection: The transaction.
        agent_id: The task that it is about, or from whose conversation and labels it takes its scope.
        new: The rule.
        call: Tool and arguments of the call that is approved with it.
        now: The moment.

    Raises:
        UsageError: The task has no conversation, or not the labels of the rule.
    """
    tool, arguments = (new.tool, None) if call is None else (new.tool or call[0], call[1])
    if new.conditions is None and (arguments is None or read_arguments(arguments) is None):
        raise UsageError(
            "The arguments of this call cannot be compared with others; approve it without a rule."
        )
    scope_key, its_tasks = _scope(connection, agent_id, new)
    row = ApprovalRule(
        rule_id=new_agent_id(),
        scope=new.scope,
        scope_key=scope_key,
        agent_id=agent_id if new.scope == "task" else None,
        labels=dict(new.labels),
        tool=tool,
        conditions=None if new.conditions is None else json.dumps(new.conditions),
        arguments=arguments if new.conditions is None else None,
        created_at=now,
        created_by=new.by,
        created_from=new.source,
        reason=new.reason,
        expires_at=now + timedelta(seconds=new.seconds),
    )
    return MadeRule(row, [*its_tasks, *metadata_conditions(new.labels)])


def save_rule(connection: Connection, rule: MadeRule) -> None:
    """Save a rule, and remove those that ended long ago."""
    row = rule.row
    connection.execute(delete(RULE).where(RULE.c.expires_at < row.created_at - timedelta(days=KEPT_DAYS)))
    values = {column.name: getattr(row, column.name) for column in RULE.c}
    connection.execute(insert(RULE).values(values))


def _scope(
    connection: Connection, agent_id: UUID | None, new: NewRule
) -> tuple[str, list[ColumnElement[bool]]]:
    """Return what the tasks of a rule's scope have in common besides its labels, and the conditions on them."""
    labels = set() if agent_id is None else _labels_of(connection, agent_id)
    if agent_id is not None and not has_labels(labels, new.labels):
        raise UsageError(
            f"Task {agent_id} does not have the labels of the rule; take labels of its metadata."
        )
    if new.scope == "metadata":
        name, value = sorted(label_rows(new.labels))[0]
        return _label_key(name, value), []
    if agent_id is None:
        raise UsageError(f'A rule with scope="{new.scope}" needs a task.')
    if new.scope == "task":
        return _task_key(agent_id), [Activity.agent_id == agent_id]
    lock_key = _turn_lock_of(connection, agent_id)
    if lock_key is not None:
        return _label_key(TURN_LOCK, lock_key), [Activity.lock_key == lock_key]
    sessions = sorted(label for label in labels if label[0].startswith(SESSION_LABEL))
    if len(sessions) != 1:
        what = "uses no session" if not sessions else "uses several sessions"
        raise UsageError(
            f'Task {agent_id} is not a turn of a conversation and {what}; use scope="task", or a label of its metadata.'
        )
    return _label_key(*sessions[0]), [driving_label_condition(sessions[0])]


def revoke(engine: Engine, rule_id: UUID, by: str | None, now: datetime) -> bool:
    """End a rule; False if it has ended before. A second call with the same `now` is safe."""
    with writing(engine) as connection:
        mine = RULE.c.rule_id == rule_id, RULE.c.expires_at > now
        values = {"revoked_at": now, "revoked_by": by}
        changed = connection.execute(update(RULE).where(*mine, RULE.c.revoked_at.is_(None)).values(values))
        if changed.rowcount == 1:
            return True
        return connection.execute(select(RULE.c.revoked_at).where(*mine)).scalar() == now


def list_rules(connection: Any, now: datetime, *, ended: bool) -> Iterator[Any]:
    """Yield the rules in force, or also those that have ended, the newest first."""
    query = select(RULE).order_by(RULE.c.rule_id.desc()).limit(MAX_RULES)
    if not ended:
        query = query.where(RULE.c.expires_at > now, RULE.c.revoked_at.is_(None))
    rows = connection.execute(query).all()
    while rows:
        yield from rows
        rows = connection.execute(query.where(RULE.c.rule_id < rows[-1].rule_id)).all()


def find_rule(engine: Engine, rule_id: UUID) -> Any | None:
    """Return a rule, or None."""
    with reading(engine) as connection:
        return connection.execute(select(RULE).where(RULE.c.rule_id == rule_id)).one_or_none()


def _labels_of(connection: Connection, agent_id: UUID) -> set[tuple[str, str]]:
    query = select(LABEL.c.name, LABEL.c.value).where(LABEL.c.agent_id == agent_id)
    return {(name, value) for name, value in connection.execute(query)}


def _turn_lock_of(connection: Connection, agent_id: UUID) -> str | None:
    """Return the lock that a task has in common with the other turns of its conversation; None if it is not a turn."""
    query = select(ACTIVITY.c.lock_key).where(ACTIVITY.c.agent_id == agent_id)
    lock_key: str | None = connection.execute(query).scalar()
    return lock_key if lock_key is not None and lock_key.startswith(TURN_LOCK) else None


def _task_key(agent_id: UUID) -> str:
    return f"task:{agent_id}"


def _label_key(name: str, value: str) -> str:
    return "label:" + hashlib.sha256(f"{name}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()

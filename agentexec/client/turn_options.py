"""Options of a conversation's turns: those of its first message count for all, unless the sender of another one names its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.queries.labels import check_label_count
from agentexec.task import Priority

KEPT = ("queue_name", "priority", "fairness_key", "budget")
"""Options that the conversation's row keeps in one column. Its labels have their own, because lists filter by them."""


class ConversationOptions(TypedDict, total=False):
    """Options of the turns of a conversation; each may be left out.

    Those given with the first message are the conversation's: every turn has them, whoever sends its message. A later
    handle may name others for its own messages, except metadata.
    """

    metadata: Mapping[str, Any] | None
    """Labels of the turns, as for `ax.enqueue`."""

    queue_name: str | None
    """Queue of the turns; by default that of their task."""

    priority: Priority
    """Priority of the turns, `ax.Priority.LOW` by default."""

    fairness_key: str | None
    """Owner of the turns, as for `ax.enqueue`."""

    budget: str | None
    """Limit of what each turn may spend, as for `ax.enqueue`."""


def kept_options(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the row of a conversation keeps of the options of its first handle."""
    return {name: options[name] for name in KEPT if options.get(name) is not None} or None


def with_kept(options: ConversationOptions, kept: Mapping[str, Any] | None) -> ConversationOptions:
    """Return a handle's options, completed by those of its conversation."""
    known = {name: value for name, value in (kept or {}).items() if name in KEPT}
    return {**known, **options}


def with_labels(new: NewTask, labels: Mapping[str, Any] | None) -> NewTask:
    """Return the task of a turn with the labels of its conversation, which win over others of the same name.

    So each turn is seen by the tenant that the conversation belongs to, whoever sends its message.
    """
    metadata = {**(new.metadata or {}), **(labels or {})}
    check_label_count(metadata)
    return new._replace(metadata=metadata or None)

"""The history of a conversation: its items at a moment, and changes of it that are made once, whatever crashes.

Every change has a number. An item has the number of the change that added it, and a removed one also that of its removal:
the history at a number consists of the items added up to it and not removed up to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.conversations.locking import advance, find_conversation, open_conversation
from agentexec.conversations.models import ItemRow
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.errors import UnavailableError
from agentexec.journal.facts import dump
from agentexec.journal.store import require_lease
from agentexec.task import Lease

T = TypeVar("T")

ITEM: Any = ItemRow.__table__

TRIES = 5
"""Times that a transaction runs whose conversation others add at the same moment."""


class StoredItem(NamedTuple):
    """An item of a history and its number."""

    number: int
    item: Any
    turn_id: UUID | None = None


class NewItem(NamedTuple):
    """An item to be added. `place` is its place in the turn that adds it, None outside of a turn."""

    place: str | None
    item: Any


def last_change(engine: Engine, conversation: str) -> int:
    """Return the number of the latest change of a history."""
    with looking_up(engine) as connection:
        row = find_conversation(connection, conversation)
    return 0 if row is None else row.last_item


def read_history(
    engine: Engine,
    conversation: str,
    *,
    limit: int,
    as_of: int | None = None,
    before: int | None = None,
    whole_turns: bool = False,
) -> list[StoredItem]:
    """Return the last items of a history, oldest first.

    Args:
        engine: The record's database.
        conversation: Id of the conversation.
        limit: Number of items at most.
        as_of: Number of the change after which it is read; None reads it as it is now.
        before: Number before which items are read, for the page before one.
        whole_turns: If it is cut, begin it with a message of the user: an output without its call is refused by models.
    """
    c = ITEM.c
    conditions = [c.conversation_id == conversation, _is_there(as_of)]
    if as_of is not None:
        conditions.append(c.number <= as_of)
    if before is not None:
        conditions.append(c.number < before)
    query = (
        select(c.number, c.item, c.turn_id)
        .where(*conditions)
        .order_by(c.number.desc())
        .limit(limit + whole_turns)
    )
    with looking_up(engine) as connection:
        rows = connection.execute(query).all()
    items = [StoredItem(row.number, json.loads(row.item), row.turn_id) for row in reversed(rows)]
    return _from_user_message(items[1:]) if whole_turns and len(items) > limit else items


def _is_there(as_of: int | None) -> ColumnElement[bool]:
    removed_by = ITEM.c.removed_by
    is_there: ColumnElement[bool] = removed_by.is_(None)
    return is_there if as_of is None else or_(is_there, removed_by > as_of)


def _from_user_message(items: list[StoredItem]) -> list[StoredItem]:
    starts = (
        place
        for place, stored in enumerate(items)
        if isinstance(stored.item, dict) and stored.item.get("role") == "user"
    )
    return items[next(starts, 0) :]


def add_items(
    engine: Engine, conversation: str, items: Sequence[NewItem], lease: Lease | None = None
) -> None:
    """Add items; in a turn, those that are not at their places yet.

    Raises LeaseLostError if the turn is another worker's, PayloadTooLargeError for an item that is too large.
    """
    now = utc_now()
    texts = [dump(_plain(new.item), "An item of the conversation") for new in items]

    def write(connection: Connection) -> None:
        row = open_conversation(connection, conversation, now)
        known = set() if lease is None else _places(connection, lease.agent_id, [new.place for new in items])
        missing = [
            (new, text)
            for new, text in zip(items, texts, strict=True)
            if lease is None or new.place not in known
        ]
        rows = [
            {
                "conversation_id": conversation,
                "number": number,
                "turn_id": None if lease is None else lease.agent_id,
                "place": new.place,
                "item": text,
                "created_at": now,
            }
            for number, (new, text) in enumerate(missing, row.last_item + 1)
        ]
        if rows:
            connection.execute(insert(ITEM), rows)
            advance(connection, conversation, now, last_item=row.last_item + len(rows))

    _in_transaction(engine, lease, write)


def remove_items(
    engine: Engine,
    conversation: str,
    *,
    numbers: Collection[int] = (),
    places: Collection[str] = (),
    all_up_to: int | None = None,
    lease: Lease | None = None,
) -> None:
    """Remove items from a history, as one change. What is removed already stays as it is.

    Args:
        engine: The record's database.
        conversation: Id of the conversation.
        numbers: Numbers of the items.
        places: Places of items that the turn has added.
        all_up_to: Remove all items up to this number.
        lease: Lease of the turn; None outside of a turn.
    """
    c = ITEM.c
    chosen = []
    if all_up_to is not None:
        chosen.append(c.number <= all_up_to)
    if numbers:
        chosen.append(c.number.in_(numbers))
    if places and lease is not None:
        chosen.append(and_(c.turn_id == lease.agent_id, c.place.in_(places)))
    if not chosen:
        return

    def write(connection: Connection) -> None:
        now = utc_now()
        row = open_conversation(connection, conversation, now)
        mine = (c.conversation_id == conversation, c.removed_by.is_(None), or_(*chosen))
        removed = connection.execute(update(ITEM).where(*mine).values(removed_by=row.last_item + 1))
        if removed.rowcount:
            advance(connection, conversation, now, last_item=row.last_item + 1)

    _in_transaction(engine, lease, write)


def _plain(item: Any) -> Any:
    """Return an item as JSON data; some are models of the API."""
    dump_model = getattr(item, "model_dump", None)
    return item if dump_model is None else dump_model(mode="json", exclude_unset=True)


def _places(connection: Connection, agent_id: UUID, places: Sequence[str | None]) -> set[str | None]:
    query = select(ITEM.c.place).where(ITEM.c.turn_id == agent_id, ITEM.c.place.in_(places))
    return set(connection.execute(query).scalars())


@retry_on_deadlock
def _in_transaction(engine: Engine, lease: Lease | None, write: Callable[[Connection], None]) -> None:
    """Make a change in a transaction, fenced by the lease of the turn; again if another process adds the conversation."""
    for _ in range(TRIES):
        try:
            with writing(engine) as connection:
                if lease is not None:
                    require_lease(connection, lease)
                write(connection)
        except IntegrityError:
            continue
        return
    raise UnavailableError("The conversation could not be written: others added it all the time; try again.")

"""The history of a conversation: its items at a moment, and changes of it that are made once, whatever crashes.

Every change has a number. An item has the number of the change that added it, and a removed one also that of its removal:
the history at a number consists of the items added up to it and not removed up to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.conversations.locking import advance, find_conversation, open_conversation
from agentexec.conversations.models import ItemRow
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.errors import UnavailableError
from agentexec.journal.facts import dump
from agentexec.journal.store import require_lease
from agentexec.payloads.columns import stored
from agentexec.payloads.offloading import is_large
from agentexec.payloads.sealing import unseal
from agentexec.runtime import RUNTIME
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


class Adder(NamedTuple):
    """A part of a turn that adds items, which are counted there: their numbers are the places by which they are known.

    `repeats`: False if no attempt can have added items before.
    """

    lease: Lease
    part: str
    repeats: bool

    def place(self, number: int) -> str:
        """Return the place of the item with this number, from 1."""
        return f"{self.part}.{number}"


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
        select(c.number, stored(c.item), c.turn_id)
        .where(*conditions)
        .order_by(c.number.desc())
        .limit(limit + whole_turns)
    )
    with looking_up(engine) as connection:
        rows = connection.execute(query).all()
    items = [StoredItem(row.number, json.loads(unseal(row.item)), row.turn_id) for row in reversed(rows)]
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
    engine: Engine, conversation: str, items: Sequence[Any], adder: Adder | None = None, first: int = 1
) -> None:
    """Add items; those of a turn have places from `first` on, and are not added where they are already.

    If one is missing, or another is in its place, the turn has gone another way since: after a retry from an earlier point. What
    it has added from there on is removed.

    Raises LeaseLostError if the turn is another worker's, PayloadTooLargeError for an item that is too large.
    """
    now = utc_now()
    texts = [dump(_plain(item), "An item of the conversation") for item in items]
    kept = [RUNTIME.offload(conversation, "item", text) if is_large(text) else text for text in texts]

    def write(connection: Connection) -> None:
        row = open_conversation(connection, conversation, now)
        change, known = row.last_item + 1, _known(connection, adder)
        same = next((n for n, text in enumerate(texts) if known.get(first + n) != text), len(texts))
        if same == len(texts):
            return
        if adder is not None and _discard(connection, adder, [n for n in known if n >= first + same], change):
            change += 1
        rows = [
            {
                "conversation_id": conversation,
                "number": change + place,
                "turn_id": None if adder is None else adder.lease.agent_id,
                "place": None if adder is None else adder.place(first + same + place),
                "item": text,
                "created_at": now,
            }
            for place, text in enumerate(kept[same:])
        ]
        connection.execute(insert(ITEM), rows)
        advance(connection, conversation, now, last_item=change + len(rows) - 1)

    _in_transaction(engine, adder and adder.lease, write)


def discard_items(engine: Engine, conversation: str, adder: Adder) -> None:
    """Remove all that a part of a turn has added: it starts from its beginning."""

    def write(connection: Connection) -> None:
        now = utc_now()
        row = open_conversation(connection, conversation, now)
        if _discard(connection, adder, list(_known(connection, adder)), row.last_item + 1):
            advance(connection, conversation, now, last_item=row.last_item + 1)

    _in_transaction(engine, adder.lease, write)


def _known(connection: Connection, adder: Adder | None) -> dict[int, str]:
    """Return the items that a part of a turn has added, by their numbers there, also those that it has removed again."""
    if adder is None or not adder.repeats:
        return {}
    c = ITEM.c
    mine = (c.turn_id == adder.lease.agent_id, c.place.startswith(f"{adder.part}.", autoescape=True))
    rows = connection.execute(select(c.place, c.item).where(*mine))
    return {int(row.place.rpartition(".")[2]): row.item for row in rows}


def _discard(connection: Connection, adder: Adder, numbers: Sequence[int], change: int) -> bool:
    """Remove items of a part of a turn and free their places; False if there are none."""
    for chunk in chunks([adder.place(number) for number in numbers]):
        mine = (ITEM.c.turn_id == adder.lease.agent_id, ITEM.c.place.in_(chunk))
        removed_by = func.coalesce(ITEM.c.removed_by, change)
        connection.execute(update(ITEM).where(*mine).values(place=None, removed_by=removed_by))
    return bool(numbers)


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

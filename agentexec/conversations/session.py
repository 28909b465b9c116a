"""`ax.Session`: the history of a conversation as a session of the Agents SDK."""

from __future__ import annotations

from typing import Any

from agentexec.arguments.checks import check_integer
from agentexec.conversations.history import (
    Adder,
    StoredItem,
    add_items,
    last_change,
    read_history,
    remove_items,
)
from agentexec.conversations.locking import checked_id
from agentexec.journal.canonical import digest
from agentexec.journal.scopes import current_scope
from agentexec.runtime import RUNTIME

DEFAULT_LIMIT = 1000
"""Number of items of a history that a run reads at most, unless its session has another limit."""


class Session:
    """History of a conversation, as a session of the Agents SDK: `runner.run(agent, text, session=ax.Session("user:42"))`.

    It is in the tables of agentexec. In a task every item is written once and in its place, under the task's lease,
    whatever crashes, and a run that is repeated sees the history as it was when the run began.

    Args:
        session_id: Id of the conversation, up to 180 characters.
        limit: Number of items that a run reads at most; 1,000 by default. A history that is longer
            is read from a message of the user on.

    Raises:
        UsageError: An argument is invalid.
    """

    session_settings: Any = None

    def __init__(self, session_id: str, *, limit: int = DEFAULT_LIMIT) -> None:
        self.session_id = checked_id(session_id)
        self.limit = check_integer("limit=", limit)

    def __repr__(self) -> str:
        return f"Session({self.session_id!r})"

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """Return the last items, oldest first.

        Args:
            limit: Number of items; None returns all up to the session's own limit.
        """
        return [stored.item for stored in await RUNTIME.run_patiently(self.read, limit)]

    async def add_items(self, items: list[Any]) -> None:
        """Add items at the end. In a task, what an earlier attempt has added is not added again."""
        scope = current_scope()
        if scope is None:
            await RUNTIME.run_patiently(add_items, RUNTIME.engine, self.session_id, items)
            return
        recorder, name = scope.recorder, f"{scope.path}/session:{self.session_id}"
        numbers = [recorder.next_ordinal(name) for _ in items]
        if numbers:
            adder = Adder(recorder.lease, part_of(name), recorder.repeats)
            await recorder.confirm_lease()
            await recorder.write_with_retry(
                add_items, RUNTIME.engine, self.session_id, items, adder, numbers[0]
            )

    async def pop_item(self) -> Any | None:
        """Remove the last item and return it; None if there is none."""
        found: StoredItem | None = await RUNTIME.run_patiently(self._pop)
        return None if found is None else found.item

    async def clear_session(self) -> None:
        """Remove all items."""
        await RUNTIME.run_patiently(self._clear)

    def read(
        self, limit: int | None = None, as_of: int | None = None, before: int | None = None
    ) -> list[StoredItem]:
        """Read the items at a moment. Blocks."""
        return read_history(
            RUNTIME.engine,
            self.session_id,
            limit=self.limit if limit is None else max(limit, 0),
            as_of=as_of,
            before=before,
            whole_turns=limit is None,
        )

    def _pop(self) -> StoredItem | None:
        found = self.read(1)
        if found:
            remove_items(RUNTIME.engine, self.session_id, numbers=[found[0].number])
        return found[0] if found else None

    def _clear(self) -> None:
        now = last_change(RUNTIME.engine, self.session_id)
        remove_items(RUNTIME.engine, self.session_id, all_up_to=now)


def part_of(name: str) -> str:
    """Return the name of a part of a turn in the places of its items: short, and of plain characters."""
    return digest(name)[:32]

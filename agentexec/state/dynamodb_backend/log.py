"""The items of a queue: its head, the entries of its log, and its snapshots.

| pk | sk | item |
| --- | --- | --- |
| `queue#<rules>#<queue>` | `head` | generation of the log; number, id and size of the last snapshot; first number that may not be emptied |
| `queue#<rules>#<queue>` | `snap#<number>#<id>#<part>` | part of a snapshot: the state after that entry |
| `log#<rules>#<queue>#<generation>#<segment>` | `<number>` | entry: its id, and commands as compressed JSON |

Entries before the last snapshot but one are emptied, and DynamoDB removes them after a week: until then their numbers are taken, so
a process that was suspended meanwhile cannot append one of them again. A table that was emptied has no head: the next append starts a new generation,
and nobody reads what another process might still append to the old one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from agentexec.state.dynamodb_backend.table import Item, Table, expiry, key

PART_BYTES = 350_000
"""Size of a part of a snapshot."""

SEGMENT = 100
"""Entries of one partition. So no partition is written to for long."""

EMPTIED_SECONDS = 7 * 86_400
"""Seconds for which the number of an entry that is no longer needed stays taken."""

LAST = "~"
"""Sort key above all others."""


@dataclass(slots=True)
class Head:
    """Head of a queue: its generation, and where its last snapshot is. Numbers start at 1."""

    generation: str = ""
    number: int = 0
    """Number of the entry after which the last snapshot was made; 0: there is no snapshot."""
    entry_id: str = ""
    snapshot: str = ""
    parts: int = 0
    size: int = 0
    kept: int = 1


class Moved(Exception):  # noqa: N818 - for this package alone
    """The log does not continue where this process is: it was shortened, or the table was emptied."""


class QueueLog:
    """Items of one queue.

    Args:
        table: The table.
        name: Name of the queue.
        rules: Version of the effects of commands.
    """

    def __init__(self, table: Table, name: str, rules: int) -> None:
        self._table = table
        self._pk = f"queue#{rules}#{name}"
        self._log_pk = f"log#{rules}#{name}#"

    def read_head(self) -> Head:
        """Return the head of the queue; an empty one if there is none."""
        return _read_head(self._table.get(self._pk, "head"))

    def create_head(self, head: Head) -> bool:
        """Create the head. False if there is one."""
        return self._table.put_new(_head_item(self._pk, head))

    def entry_key(self, head: Head, number: int) -> Item:
        """Return the key of an entry."""
        return key(f"{self._log_pk}{head.generation}#{number // SEGMENT}", sort_key(number))

    def entries(self, head: Head, number: int) -> Generator[Item]:
        """Yield the entries from a number on."""
        while True:
            first, last = self.entry_key(head, number), None
            for item in self._table.query(first["pk"]["S"], first["sk"]["S"], LAST):
                last = item["sk"]["S"]
                yield item
            number = (number // SEGMENT + 1) * SEGMENT
            if last != sort_key(number - 1):
                return

    def load_snapshot(self, head: Head) -> dict[str, Any]:
        """Return the last snapshot. Raises Moved if a newer one replaces it meanwhile."""
        start = f"snap#{sort_key(head.number)}#{head.snapshot}#"
        parts = [bytes(item["data"]["B"]) for item in self._table.query(self._pk, start, start + LAST)]
        if len(parts) != head.parts:
            raise Moved
        return json.loads(zlib.decompress(b"".join(parts)))

    def store_snapshot(self, old: Head, number: int, entry_id: str, saved: dict[str, Any]) -> Head | None:
        """Store the state after an entry, and remove what it makes superfluous. None if another process was first."""
        data = zlib.compress(json.dumps(saved, separators=(",", ":")).encode(), 3)
        parts = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
        new = Head(old.generation, number, entry_id, uuid4().hex, len(parts), len(data), old.kept)
        start = f"snap#{sort_key(new.number)}#{new.snapshot}#"
        self._table.put_all(
            {**key(self._pk, f"{start}{place:06}"), "data": {"B": part}} for place, part in enumerate(parts)
        )
        is_newest = self._table.put_if(
            _head_item(self._pk, new),
            "#generation = :generation AND #number < :number",
            {":generation": {"S": new.generation}, ":number": {"N": str(new.number)}},
            {"#number": "number", "#generation": "generation"},
        )
        if not is_newest:
            return None
        self._clean_up(old, new)
        return new

    def _clean_up(self, old: Head, new: Head) -> None:
        """Delete older snapshots, and empty the entries before the last snapshot but one: others may be between the two."""
        found = self._table.query(
            self._pk, "snap#", f"snap#{sort_key(new.number)}", ProjectionExpression="pk, sk"
        )
        self._table.delete_all(list(found))
        end = max(old.number, new.kept)
        self._table.put_all(
            {**self.entry_key(new, number), "ttl": expiry(EMPTIED_SECONDS)} for number in range(new.kept, end)
        )
        if end > new.kept:
            self._table.succeeds(
                self._table.client.update_item,
                TableName=self._table.name,
                Key=key(self._pk, "head"),
                UpdateExpression="SET #kept = :kept",
                ConditionExpression="#generation = :generation AND #kept < :kept",
                ExpressionAttributeNames={"#generation": "generation", "#kept": "kept"},
                ExpressionAttributeValues={":kept": {"N": str(end)}, ":generation": {"S": new.generation}},
            )


def sort_key(number: int) -> str:
    """Return the sort key of an entry."""
    return f"{number:016}"


def _head_item(pk: str, head: Head) -> Item:
    return {
        **key(pk, "head"),
        "generation": {"S": head.generation},
        "number": {"N": str(head.number)},
        "entry_id": {"S": head.entry_id},
        "snapshot": {"S": head.snapshot},
        "parts": {"N": str(head.parts)},
        "size": {"N": str(head.size)},
        "kept": {"N": str(head.kept)},
    }


def _read_head(item: Item | None) -> Head:
    """Return the head of a queue; an empty one if there is none."""
    if item is None:
        return Head()
    return Head(
        item["generation"]["S"],
        int(item["number"]["N"]),
        item["entry_id"]["S"],
        item["snapshot"]["S"],
        int(item["parts"]["N"]),
        int(item["size"]["N"]),
        int(item["kept"]["N"]),
    )

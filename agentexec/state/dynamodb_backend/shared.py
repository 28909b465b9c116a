"""Leaderships and token buckets: one item for each, changed on the condition that it is as it was read.

DynamoDB has no clock that conditions can use, so times are those of the callers, corrected by its replies (`clock.py`).

| pk | sk | item |
| --- | --- | --- |
| `leader#<role>` | `-` | owner, and the time until which it leads |
| `bucket#<name>` | `-` | the time at which the bucket is full again, in microseconds |
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from agentexec.errors import UnavailableError
from agentexec.llm.rate_limits import MAX_DEBT_MICROS, MICROS_PER_SECOND, Demand, spend
from agentexec.state.backend import longest_leadership
from agentexec.state.dynamodb_backend.table import Item, Table, code_of, expiry, key, pause

ONLY = "-"
"""Sort key of an item that is alone in its partition."""

RESERVE_SECONDS = 10.0
"""Time limit of a reservation whose buckets others keep changing."""


def _number(value: float) -> Item:
    return {"N": repr(value)}


class SharedState:
    """Part of the DynamoDB backend that coordinates processes."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        """Acquire or keep a leadership for `seconds`; False if another owner holds it."""
        now = self._table.now()
        with self._table.translated_errors():
            return self._table.put_if(
                {
                    **key(f"leader#{role}", ONLY),
                    "owner": {"S": owner},
                    "until": _number(now + seconds),
                    "ttl": expiry(seconds + 86_400),
                },
                "attribute_not_exists(pk) OR #owner = :owner OR #until <= :now OR #until > :longest",
                {
                    ":owner": {"S": owner},
                    ":now": _number(now),
                    ":longest": _number(now + longest_leadership(seconds)),
                },
                {"#owner": "owner", "#until": "until"},
            )

    def release_leadership(self, role: str, owner: str) -> None:
        """Give up a leadership if `owner` holds it."""
        with self._table.translated_errors():
            self._table.succeeds(
                self._table.client.delete_item,
                TableName=self._table.name,
                Key=key(f"leader#{role}", ONLY),
                ConditionExpression="#owner = :owner",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":owner": {"S": owner}},
            )

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        """Take amounts from token buckets, all of them or none; see `StateBackend.reserve`."""
        return self._take(demands, max_wait)

    def settle(self, demands: Sequence[Demand]) -> None:
        """Correct earlier reservations, without a wait."""
        self._take(demands, None)

    def _take(self, demands: Sequence[Demand], max_wait: float | None) -> float:
        if not demands:
            return 0.0
        deadline, failures = time.monotonic() + RESERVE_SECONDS, 0
        # Threads of one process wait for each other here, and not by failed conditions.
        with self._table.lock, self._table.translated_errors():
            while True:
                wait, puts = self._spent(demands)
                if (max_wait is not None and wait > max_wait) or self._put(puts):
                    return wait
                failures += 1
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        "DynamoDB: too many processes change a rate limit at the same time."
                    )
                time.sleep(pause(failures))

    def _spent(self, demands: Sequence[Demand]) -> tuple[float, list[dict[str, Any]]]:
        """Return the seconds to wait, and the puts of the buckets as they are then."""
        keys = [key(f"bucket#{demand.name}", ONLY) for demand in demands]
        found = {item["pk"]["S"]: int(item["full_at"]["N"]) for item in self._table.read_all(keys)}
        known = [found.get(each["pk"]["S"]) for each in keys]
        now = round(self._table.now() * MICROS_PER_SECOND)
        spent = [spend(full_at, now, demand) for full_at, demand in zip(known, demands, strict=True)]
        puts = [
            _put_bucket(self._table.name, each, before, after)
            for each, before, (_, after) in zip(keys, known, spent, strict=True)
        ]
        return max(micros for micros, _ in spent) / MICROS_PER_SECOND, puts

    def _put(self, puts: Sequence[dict[str, Any]]) -> bool:
        """Put all buckets or none. False if one of them has changed."""
        if len(puts) == 1:
            return self._table.succeeds(self._table.client.put_item, **puts[0])
        try:
            # With a token, a repeated request is the same one.
            self._table.client.transact_write_items(
                TransactItems=[{"Put": put} for put in puts], ClientRequestToken=str(uuid4())
            )
        except ClientError as error:
            if code_of(error) not in ("TransactionCanceledException", "TransactionConflictException"):
                raise
            return False
        return True


def _put_bucket(table: str, item_key: Item, before: int | None, after: int) -> dict[str, Any]:
    item = {
        **item_key,
        "full_at": {"N": str(after)},
        "ttl": expiry(MAX_DEBT_MICROS / MICROS_PER_SECOND),
    }
    if before is None:
        return {"TableName": table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
    return {
        "TableName": table,
        "Item": item,
        "ConditionExpression": "full_at = :before",
        "ExpressionAttributeValues": {":before": {"N": str(before)}},
    }

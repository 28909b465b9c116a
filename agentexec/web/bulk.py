"""Acts on all tasks that match a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentexec.web.schemas import BulkBody, BulkSchema

COUNTED = 10_000
"""Number of matching tasks up to which they are counted: each of a large tenant costs a look at its labels."""


def acting_on_many(body: BulkBody, matched: int, act: Callable[[], Iterable[int]]) -> BulkSchema:
    """Act, unless only the number is asked for, and return the outcome.

    Args:
        body: The request.
        matched: Number of tasks that match, counted up to one more than `COUNTED`.
        act: Changes tasks in batches, up to the limit of the request, and returns the number of each batch.
    """
    changed = 0 if body.dry_run else sum(act())
    return BulkSchema(
        dry_run=body.dry_run,
        matched=min(matched, COUNTED),
        matched_is_exact=matched <= COUNTED,
        changed=changed,
        more=matched > (0 if body.dry_run else body.limit),
    )

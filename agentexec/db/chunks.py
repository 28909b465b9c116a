"""Parts of long lists, and the sizes of these parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

MAX_IDS_PER_STATEMENT = 500
"""Ids in one statement: below every database's limit on parameters."""

MAX_ROWS_PER_TRANSACTION = 500
"""Rows that one transaction handles: no transaction holds locks for long."""


def chunks(items: Sequence[T], size: int = MAX_IDS_PER_STATEMENT) -> Iterator[list[T]]:
    """Return parts of at most `size` items."""
    return (list(items[start : start + size]) for start in range(0, len(items), size))

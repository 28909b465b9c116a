"""Long lists, handled in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

CHUNK_SIZE = 500
"""Ids in one statement, below every database's limit on parameters; rows in one transaction, which must not hold
locks for long."""


def chunks(items: Sequence[T], size: int = CHUNK_SIZE) -> Iterator[list[T]]:
    """Return parts of at most `size` items."""
    return (list(items[start : start + size]) for start in range(0, len(items), size))

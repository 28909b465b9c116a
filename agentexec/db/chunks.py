"""Parts of long lists of ids, one for each statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

CHUNK_SIZE = 500
"""Ids in one statement: below every database's limit on parameters."""


def chunks(ids: Sequence[Any]) -> Iterator[list[Any]]:
    """Parts of at most CHUNK_SIZE."""
    return (list(ids[start : start + CHUNK_SIZE]) for start in range(0, len(ids), CHUNK_SIZE))

"""The clock of the record."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present moment, with its time zone."""
    return datetime.now(UTC)

"""Versions of code: of a worker, and of single tasks."""

from __future__ import annotations

from typing import Any

from agentexec.arguments.checks import check_text

MAX_VERSION = 100
"""Maximum characters of a version."""


def checked_version(name: str, value: Any) -> str | None:
    """Return a version, or None. Raises UsageError for what is not a text of 1 to MAX_VERSION characters."""
    return None if value is None else check_text(name, value, MAX_VERSION)

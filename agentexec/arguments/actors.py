"""Names of those who act on tasks, and where they are, as logs and the record show them."""

from __future__ import annotations

import getpass
import os
import re
import socket
from typing import Any

from agentexec.arguments.checks import check_text

MAX_ACTOR = 200
"""Maximum characters of a name."""

MAX_REASON = 1000
"""Maximum characters of a reason."""


def phrase(by: Any) -> str:
    """Return " by NAME" for a log line, or an empty text without a name. Raises UsageError for a name that is none."""
    return "" if by is None else " by " + actor_name(by)


def actor_name(by: Any) -> str:
    """Return a name as one line. Raises UsageError for a name that is none.

    White space and control characters become spaces: a name cannot start a line of its own.
    """
    return _one_line(check_text("by=", by, MAX_ACTOR))


def checked_reason(reason: Any) -> str | None:
    """Return a reason as one line, None without one. Raises UsageError."""
    return None if reason is None else _one_line(check_text("reason=", reason, MAX_REASON))


def checked_source(source: Any) -> str:
    """Return where an act comes from: a given text, or code on this host. Raises UsageError."""
    return source_on_host("code") if source is None else _one_line(check_text("source=", source, MAX_ACTOR))


def source_on_host(kind: str) -> str:
    """Return a source of acts on this host."""
    return f"{kind} {socket.gethostname()}"[:MAX_ACTOR]


def current_user() -> str:
    """Return the name of the user of this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run under a user without a name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def _one_line(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()

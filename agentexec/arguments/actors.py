"""Names of those who act on tasks, as logs and the record show them."""

from __future__ import annotations

import re
from typing import Any

from agentexec.arguments.checks import check_text

MAX_ACTOR = 200
"""Maximum characters of a name."""


def phrase(by: Any) -> str:
    """Return " by NAME" for a log line, or an empty text without a name. Raises UsageError for a name that is none.

    White space and control characters become spaces: a name cannot start a line of its own.
    """
    if by is None:
        return ""
    return (
        " by " + re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", check_text("by=", by, MAX_ACTOR)).strip()
    )

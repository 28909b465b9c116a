"""Time that is left for the result of a message, whose turn may become another task meanwhile."""

from __future__ import annotations

import time

from agentexec.arguments.checks import check_timeout
from agentexec.conversations.turns import ConversationMessage


class TurnWait:
    """Wait for the result of a message, whose turn may be another task than the one it was sent with."""

    def __init__(self, timeout: float | None) -> None:
        timeout = check_timeout("timeout=", timeout)
        self._end = None if timeout is None else time.monotonic() + timeout

    @property
    def seconds(self) -> float | None:
        """Seconds that are left; None without limit."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def has_moved(self, before: ConversationMessage, now: ConversationMessage) -> bool:
        """Return True if the message has got another task while the first one was waited for."""
        return before.agent_id != now.agent_id

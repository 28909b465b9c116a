"""Calls of the state backend that may fail: the record has the work already, and somebody makes up for the call later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from agentexec.errors import AgentexecError
from agentexec.redaction import redact

QUIET_SECONDS = 60.0
"""Seconds for which the same failure is not logged again: during an outage there may be thousands of them."""

MAX_REASONS = 100
"""Reasons that are kept apart: some contain names."""


class BestEffort:
    """Failures of a process's optional calls, logged once a minute for each reason. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._quiet: dict[tuple[str, str], tuple[float, int]] = {}
        """For each failure, the time until which it is not logged, and the number of those left out."""

    @contextmanager
    def guard(self, log: logging.Logger, consequence: str, *args: object) -> Generator[None]:
        """Log every error of the block instead of raising it.

        Args:
            log: Logger of the caller.
            consequence: Rest of the log line after the reason, with placeholders for `args`.
            *args: Arguments of `consequence`.
        """
        try:
            yield
        except Exception as error:
            known = isinstance(error, AgentexecError)
            reason = str(error) if known else _describe(error)
            left_out = self._note(consequence, reason)
            if left_out is not None:
                more = f" ({left_out} more like this since the last line.)" if left_out else ""
                log.warning(f"%s {consequence}%s", reason, *args, more, exc_info=None if known else error)

    def close(self) -> None:
        """Do nothing: this holds no resource."""

    def _note(self, consequence: str, reason: str) -> int | None:
        """Return the number of equal failures since the last line if this one is to be logged, else None."""
        key, now = (consequence, reason), time.monotonic()
        with self._lock:
            until, left_out = self._quiet.get(key, (0.0, 0))
            if now < until:
                self._quiet[key] = (until, left_out + 1)
                return None
            if len(self._quiet) >= MAX_REASONS:
                self._quiet.clear()
            self._quiet[key] = (now + QUIET_SECONDS, 0)
            return left_out


def _describe(error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return redact(f"The state backend failed: {type(error).__name__}: {first_line}.")

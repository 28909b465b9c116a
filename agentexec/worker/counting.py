"""Counting: keeps the remembered task counts fresh, so that lists need not count millions of rows."""

from __future__ import annotations

import time

from sqlalchemy import Engine

from agentexec.activity.queries import counts

INTERVAL = 30.0
"""Seconds between two counts."""

COUNT_SHARE = 20
"""Inverse of the share of time spent on counting: at most a twentieth."""


class Counting:
    """Counts tasks every half minute, less often where counting takes long."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next = 0.0

    def run_if_due(self, clock: float) -> None:
        """Refresh the counts if they are old enough; `clock` is monotonic. Raises UnavailableError."""
        if clock < self._next:
            return
        began = time.monotonic()
        counts.refresh(self._engine)
        took = time.monotonic() - began
        self._next = clock + max(INTERVAL, took * COUNT_SHARE)

"""Partition care: where log and journal are partitioned by time, the leader makes the next partitions ahead."""

from __future__ import annotations

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from agentexec.activity.partitions import add_due, interval_of
from agentexec.db.clock import utc_now
from agentexec.db.errors import reason_of
from agentexec.db.migration_lock import hold_migration_lock
from agentexec.db.transactions import reading, writing

log = logging.getLogger("agentexec.reconciler")

INTERVAL = 3600.0
"""Seconds between two looks."""

RETRY_SECONDS = 60.0
"""Seconds until the next try after one that failed."""


class PartitionCare:
    """Makes the partitions that are due, every hour."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next = 0.0

    def run_if_due(self, clock: float) -> int:
        """Make the partitions that are due, and return their number; `clock` is monotonic. Raises UnavailableError."""
        if clock < self._next or self._engine.dialect.name != "postgresql":
            return 0
        # Not at once, should a table be in use: others wait behind each try.
        self._next = clock + RETRY_SECONDS
        with reading(self._engine) as connection:
            interval = interval_of(connection)
        made = 0
        if interval is not None:
            try:
                with writing(self._engine) as connection, hold_migration_lock(connection):
                    made = add_due(connection, interval, utc_now())
            except DBAPIError as error:
                log.warning(
                    "Cannot make the next partitions of log and journal: %s. New rows go to the default ones; "
                    "run `agentexec migrate --partition %s` as the owner of the tables.",
                    reason_of(error),
                    interval,
                )
        self._next = clock + INTERVAL
        return made

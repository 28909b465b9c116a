"""Queue vacuum: on PostgreSQL, the leader removes the queue's dead rows before claims read many of them.

Each task leaves dead entries at the beginning of the index, where claims start to read. Autovacuum comes once a minute
at most, which is too rarely for a queue with thousands of tasks a second.
"""

from __future__ import annotations

import logging
import time

from sqlalchemy import text

from agentexec.db.transactions import autocommitting
from agentexec.runtime import Runtime
from agentexec.state.sql_models import QueueEntry

log = logging.getLogger("agentexec.reconciler")

INTERVAL = 5.0
"""Seconds between two looks at the number of dead rows."""

MIN_DEAD = 5_000
"""Dead rows below which the table is left to autovacuum."""

LIVE_SHARE = 20
"""Inverse of the dead rows for each live one from which a vacuum is worth reading the indexes."""

VACUUM_SHARE = 20
"""Inverse of the share of time spent on vacuums: at most a twentieth."""

_QUEUE = QueueEntry.__tablename__
_DEAD = text(
    "SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass(:queue)"
).bindparams(queue=f'"{_QUEUE}"')
# Without waiting for another vacuum. If the role does not own the table, the server warns and leaves it as it is.
_VACUUM = text(f'VACUUM (SKIP_LOCKED, TRUNCATE off, INDEX_CLEANUP on) "{_QUEUE}"')


class QueueVacuum:
    """Vacuums the queue's table while tasks leave many dead rows in it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._next = 0.0

    def run_if_due(self, clock: float) -> bool:
        """Vacuum the table if it has many dead rows, and return True then; `clock` is monotonic. Raises UnavailableError."""
        if clock < self._next or not self._is_on_postgresql():
            return False
        self._next = clock + INTERVAL
        began = time.monotonic()
        with autocommitting(self._runtime.engine) as connection:
            row = connection.execute(_DEAD).first()
            if row is None or row.n_dead_tup < MIN_DEAD + row.n_live_tup / LIVE_SHARE:
                return False
            connection.execute(_VACUUM)
        took = time.monotonic() - began
        self._next = clock + max(INTERVAL, took * VACUUM_SHARE)
        log.debug("Vacuumed %s with %d dead rows in %.2f s.", _QUEUE, row.n_dead_tup, took)
        return True

    def _is_on_postgresql(self) -> bool:
        return self._runtime.backend.transactional and self._runtime.engine.dialect.name == "postgresql"

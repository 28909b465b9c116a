"""Check that a process uses the same state backend as the workers, which note theirs in the record."""

from __future__ import annotations

import logging
import threading

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.activity.models import Meta
from agentexec.config import CONF
from agentexec.db.transactions import reading, writing
from agentexec.runtime import RUNTIME, Runtime

log = logging.getLogger("agentexec")

PREFIX = "state_backend:"
"""Prefix of the names in `meta`; the queue follows."""


def record_backend(runtime: Runtime, queue: str, backend: str) -> None:
    """Note in the record which backend the workers of a queue use."""
    name = PREFIX + queue
    with writing(runtime.engine) as connection:
        if connection.execute(update(Meta).where(Meta.name == name).values(value=backend)).rowcount:
            return
    try:
        with writing(runtime.engine) as connection:
            connection.execute(insert(Meta).values(name=name, value=backend))
    except IntegrityError:
        log.debug("Another worker noted the backend in the same moment.")


class BackendCheck:
    """Comparison of this process's backend with that of the workers, made once for each queue."""

    def __init__(self) -> None:
        self._checked: set[str] = set()
        self._lock = threading.Lock()

    def check(self, queue: str) -> None:
        """Log a warning if the workers of a queue use another backend. Raises UnavailableError."""
        if queue in self._checked:
            return
        with self._lock:
            if queue in self._checked:
                return
            self._checked.add(queue)
        with reading(RUNTIME.engine) as connection:
            noted = connection.execute(select(Meta.value).where(Meta.name == PREFIX + queue)).scalar()
        if noted is not None and noted != CONF.backend_module:
            log.warning(
                "This process uses the state backend %s, but the workers of queue %s use %s, so its tasks start late, when "
                "their reconciler finds them. Give this process the same settings (is AGENTEXEC_REDIS_URL set?).",
                CONF.backend_module,
                queue,
                noted,
            )

    def close(self) -> None:
        """Forget which queues were checked."""
        self._checked.clear()

"""The deployment's state backend, noted in the record: a process that uses another one is warned."""

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


def record_backend(runtime: Runtime, queue: str, backend: str) -> None:
    """Note, when a worker starts, through which backend a queue is worked off."""
    name = PREFIX + queue
    with writing(runtime.engine) as connection:
        if connection.execute(update(Meta).where(Meta.name == name).values(value=backend)).rowcount:
            return
    try:
        with writing(runtime.engine) as connection:
            connection.execute(insert(Meta).values(name=name, value=backend))
    except IntegrityError:
        log.debug("Another worker has noted the backend in the same moment.")


class BackendCheck:
    """Compares, once for each queue, this process's backend with that of the workers."""

    def __init__(self) -> None:
        self._checked: set[str] = set()
        self._lock = threading.Lock()

    def check(self, queue: str) -> None:
        """Warn if the workers of a queue use another backend; raises UnavailableError."""
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
                "This process uses the state backend %s, but the workers of queue %s use %s. What it enqueues is found "
                "later, by their reconciler: give it the same settings (is AGENTEXEC_REDIS_URL set?).",
                CONF.backend_module,
                queue,
                noted,
            )

    def close(self) -> None:
        """Forget what was checked."""
        self._checked.clear()

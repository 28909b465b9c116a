"""Sweep of the payload store: values of tasks that the record does not have, which crashes and rolled-back enqueues left."""

from __future__ import annotations

import logging
import random
import time
from uuid import UUID

from sqlalchemy import select

from agentexec.activity.models import Activity
from agentexec.config import CONF
from agentexec.db.chunks import chunks
from agentexec.db.transactions import reading
from agentexec.payloads.references import shard_of
from agentexec.payloads.stores import PayloadStore, payload_store
from agentexec.runtime import Runtime

log = logging.getLogger("agentexec.maintenance")

INTERVAL = 60.0
"""Seconds between two runs, each of which looks at one shard."""

SHARDS = 256

MIN_AGE = 86_400.0
"""Seconds for which values are kept without a task: its transaction may still be open."""


class PayloadSweep:
    """Removes the folders of tasks that do not exist, in all shards within some hours."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._next = 0.0
        self._shard = random.randrange(SHARDS)  # noqa: S311 - spreads work, no secret

    def run_if_due(self, clock: float) -> None:
        """Sweep the next shard if the last run is long enough ago; `clock` is monotonic. Raises UnavailableError."""
        if CONF.payload_store is not None and clock >= self._next:
            self._next = clock + INTERVAL
            self._shard = (self._shard + 1) % SHARDS
            sweep(self._runtime, self._shard, time.time())


def sweep(runtime: Runtime, shard: int, now: float) -> int:
    """Remove what one shard of this deployment has of tasks that do not exist; return the number of their folders."""
    store = payload_store()
    if store is None:
        return 0
    folder = shard_of(runtime.deployment.id, shard)
    found = {
        UUID(name): f"{folder}/{name}" for name in store.names(folder) if len(name) == len(UUID(int=0).hex)
    }
    # Read after the folders: a task whose folder is there was either accepted before, or is younger than a day.
    known: set[UUID] = set()
    with reading(runtime.engine) as connection:
        for chunk in chunks(list(found)):
            query = select(Activity.agent_id).where(Activity.agent_id.in_(chunk))
            known.update(connection.execute(query).scalars())
    old = [path for agent_id, path in found.items() if agent_id not in known and _is_old(store, path, now)]
    for path in old:
        store.remove(path)
    if old:
        log.info("Removed the large values of %d task(s) that do not exist.", len(old))
    return len(old)


def _is_old(store: PayloadStore, folder: str, now: float) -> bool:
    # An empty folder may have been made for a value that is about to be written.
    names = store.names(folder)
    return bool(names) and all(store.changed_at(f"{folder}/{name}") < now - MIN_AGE for name in names)

"""The preflight: checks database, schema, state backend and payload store before the first task is claimed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from agentexec.client.backend_check import record_backend
from agentexec.config import MEMORY_BACKEND, SQL_BACKEND, Settings
from agentexec.db.engine import require_shareable
from agentexec.db.pooler import pooling_of
from agentexec.db.transactions import reading
from agentexec.db.urls import safe_url
from agentexec.errors import SchemaError, UnavailableError, UsageError
from agentexec.outage import Outage, backoff
from agentexec.payloads.sealing import require_encryption
from agentexec.payloads.stores import check_store
from agentexec.runtime import Runtime
from agentexec.schema.migrate import upgrade
from agentexec.schema.tables import check_schema

log = logging.getLogger("agentexec.worker")


def preflight(runtime: Runtime, settings: Settings, connect_timeout: float) -> None:
    """Check everything that workers need, and wait up to `connect_timeout` seconds for each server.

    Migrates the embedded database. Raises UnavailableError, SchemaError, UsageError, SettingsError.
    """
    require_shareable(runtime.engine)
    if settings.backend_module == MEMORY_BACKEND:
        raise UsageError(
            f"AGENTEXEC_STATE_BACKEND names {MEMORY_BACKEND}, which lives in one process and is for tests. Workers need "
            f"{SQL_BACKEND} or Redis."
        )
    _wait_for("the database", lambda: _connect(runtime), connect_timeout)
    try:
        check_schema(runtime.engine)
    except SchemaError:
        if not runtime.embedded:
            raise
        upgrade(runtime.engine)
    _wait_for("the state backend", runtime.backend.ping, connect_timeout)
    require_encryption()
    _wait_for("the payload store", check_store, connect_timeout)
    for queue in settings.served_queues:
        record_backend(runtime, queue.name, settings.backend_module)
    if settings.queue_name not in {queue.name for queue in settings.served_queues}:
        log.warning(
            "Tasks for which no queue is given go to queue %s (AGENTEXEC_QUEUE_NAME), which this worker does not serve.",
            settings.queue_name,
        )
    if not pooling_of(runtime.engine).keeps_session:
        log.info(
            "A connection pooler in transaction mode serves the database: prepared statements are off%s.",
            ", and new tasks are polled for" if settings.backend_module == SQL_BACKEND else "",
        )
    where = safe_url(runtime.engine.url)
    if settings.backend_module == SQL_BACKEND:
        log.info("Using %s for record and queue.", where)
    else:
        log.info("Using %s for the record, and %s for the queue.", where, settings.backend_module)


def _connect(runtime: Runtime) -> None:
    with reading(runtime.engine) as connection:
        connection.exec_driver_sql("SELECT 1")


def _wait_for(server: str, connect: Callable[[], None], connect_timeout: float) -> None:
    deadline = time.monotonic() + connect_timeout
    outage = Outage(log, recovered=f"Connected to {server}.")
    while True:
        try:
            connect()
        except (UnavailableError, UsageError) as error:
            # Where workers already serve, they go on; nothing is gained by ending them.
            hopeless = isinstance(error, UsageError) and connect_timeout < math.inf
            wait = backoff(outage.failures + 1)
            if hopeless or time.monotonic() + wait > deadline:
                raise
            time.sleep(outage.failed("%s Waiting for it.", error))
        else:
            outage.recovered()
            return

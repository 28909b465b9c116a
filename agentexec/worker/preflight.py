"""What is checked before the first task is claimed: database, schema, state backend."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agentexec.client.backend_check import record_backend
from agentexec.config import MEMORY_BACKEND, SQL_BACKEND, Settings
from agentexec.db.engine import require_shareable
from agentexec.db.transactions import reading
from agentexec.db.urls import safe_url
from agentexec.errors import SchemaError, UnavailableError, UsageError
from agentexec.outage import backoff
from agentexec.runtime import Runtime
from agentexec.schema.migrate import upgrade
from agentexec.schema.tables import check_schema

log = logging.getLogger("agentexec.worker")


def preflight(runtime: Runtime, settings: Settings, connect_timeout: float) -> None:
    """Reach everything, waiting up to `connect_timeout` seconds for each server.

    Migrates the embedded database by itself. Raises UnavailableError, SchemaError, UsageError.
    """
    require_shareable(runtime.engine)
    if settings.backend_module == MEMORY_BACKEND:
        raise UsageError(
            f"AGENTEXEC_STATE_BACKEND names {MEMORY_BACKEND}, which lives in one process and is for tests; workers need "
            f"{SQL_BACKEND}, or a Redis."
        )
    _wait_for(lambda: _reach(runtime), connect_timeout)
    try:
        check_schema(runtime.engine)
    except SchemaError:
        if not runtime.embedded:
            raise
        upgrade(runtime.engine)
    _wait_for(runtime.backend.ping, connect_timeout)
    record_backend(runtime, settings.queue_name, settings.backend_module)
    where = safe_url(runtime.engine.url)
    if settings.backend_module == SQL_BACKEND:
        log.info("Record and queue are in %s.", where)
    else:
        log.info("The record is in %s, the queue in %s.", where, settings.backend_module)


def _reach(runtime: Runtime) -> None:
    with reading(runtime.engine) as connection:
        connection.exec_driver_sql("SELECT 1")


def _wait_for(reach: Callable[[], None], connect_timeout: float) -> None:
    deadline = time.monotonic() + connect_timeout
    failures = 0
    while True:
        try:
            reach()
        except UnavailableError as error:
            failures += 1
            wait = backoff(failures)
            if time.monotonic() + wait > deadline:
                raise
            if failures == 1:
                log.warning("%s Waiting for it.", error)
            time.sleep(wait)
        else:
            if failures:
                log.info("It is there now.")
            return

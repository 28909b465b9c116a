"""The choice of the record store."""

from __future__ import annotations

from sqlalchemy import Engine

from agentexec.activity.changes.postgres_store import PostgresRecordStore
from agentexec.activity.changes.sqlite_store import SqliteRecordStore
from agentexec.activity.changes.store import RecordStore
from agentexec.runtime import RUNTIME, Runtime


def record_store(runtime: Runtime = RUNTIME) -> RecordStore:
    """Return the record store of a runtime; it is chosen once for the runtime's engine."""
    return runtime.get_shared(RecordStore, lambda: open_record_store(runtime.engine))


def open_record_store(engine: Engine) -> RecordStore:
    """Return a new record store that suits the engine's database."""
    if engine.dialect.driver == "pysqlite":
        return SqliteRecordStore(engine)
    return (PostgresRecordStore if engine.dialect.name == "postgresql" else RecordStore)(engine)

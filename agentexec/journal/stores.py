"""The choice of the journal store."""

from __future__ import annotations

from sqlalchemy import Engine

from agentexec.journal.postgres_store import PostgresJournalStore
from agentexec.journal.store import JournalStore
from agentexec.runtime import RUNTIME, Runtime


def journal_store(runtime: Runtime = RUNTIME) -> JournalStore:
    """Return the journal store of a runtime; it is chosen once for the runtime's engine."""
    return runtime.get_shared(JournalStore, lambda: open_journal_store(runtime.engine))


def open_journal_store(engine: Engine) -> JournalStore:
    """Return a new journal store that suits the engine's database."""
    return (PostgresJournalStore if engine.dialect.name == "postgresql" else JournalStore)(engine)

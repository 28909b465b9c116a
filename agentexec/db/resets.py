"""Resets of connections that go back to the pool, without a round trip where the transaction has ended.

The pool of SQLAlchemy rolls each connection back, for drivers that say nothing of their transactions. MySQL's drivers send
that to the server: one more round trip for each transaction that was committed.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

COMMITTED = "agentexec_committed"
"""Key of a connection's `info`: its transaction was committed, and nothing has run since."""

OPTION = "agentexec_resets_by_need"
"""Execution option of an engine whose pool asks this module."""


def reset_by_need(engine: Engine) -> None:
    """Have an engine, which was made with `pool_reset_on_return=None`, roll back only what has not ended."""
    event.listen(engine, "reset", _reset)
    engine.update_execution_options(**{OPTION: True})


def resets_by_need(connection: Connection) -> bool:
    """Return True if a connection is closed without a round trip once its transaction has ended."""
    return bool(connection.get_execution_options().get(OPTION))


@contextmanager
def noting_commit(connection: Connection) -> Generator[None]:
    """Note, unless the block raises, that a connection which is closed next has nothing left to roll back."""
    yield
    if resets_by_need(connection):
        connection.info[COMMITTED] = True


def _reset(raw: Any, record: Any, state: Any) -> None:
    is_over = record is not None and record.info.pop(COMMITTED, False)
    if not (is_over or state.transaction_was_reset):
        raw.rollback()

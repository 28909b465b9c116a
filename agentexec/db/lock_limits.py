"""Limits of agentexec's own transactions, so that a process that is frozen inside one does not keep its locks.

A process that was stopped, or whose host was, answers nobody, and the server goes on holding the locks of its transaction.
So the server ends a transaction of ours that is silent for as long as a host may be before it counts as dead, and a
statement that waits for a lock gives up after a while, for its caller to try again. What users do in transactions of
their own has no limits, also on an engine that they share with us.

On PostgreSQL the limits are settings of the transaction, which a pooler cannot leak. On MySQL and MariaDB they belong to
the session: they are set once for each connection of an engine that we have opened, and taken off for users' code.
"""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy import ColumnClause, Connection, Dialect, Engine, event, literal_column

OPTION = "agentexec_limits_sessions"
"""Execution option of an engine whose sessions get limits: one that agentexec has opened itself, on MySQL or MariaDB."""

FOR_USERS = "agentexec_engine_for_users"
"""Execution option of such an engine: the engine on the same pool whose sessions have no limits."""

FLAG = "agentexec_limited"
"""Key of a connection's `info`: its session has limits."""

IDLE_SECONDS = 10
"""Seconds without a statement after which the server ends a transaction of ours."""

LOCK_SECONDS = 10
"""Seconds that a statement waits for a lock; on SQLite, a transaction for the file's lock."""

WHOLE_SECONDS = 300
"""Seconds after which PostgreSQL ends a transaction of ours that was frozen between the statements of one round trip: to
the server, it is not idle then."""

MYSQL_IDLE_SECONDS = 60
"""The same as IDLE_SECONDS on MySQL, whose only such limit is for all idle connections; the pool opens those again."""

WITH_WHOLE_LIMIT = (17,)
"""First version of PostgreSQL that limits whole transactions."""

WITH_IDLE_LIMIT = (10, 3)
"""First version of MariaDB that limits idle transactions."""


def transaction_limits(dialect: Dialect) -> str:
    """Return the calls that set the limits of a PostgreSQL transaction, for a SELECT that is sent with other statements."""
    return ", ".join(_calls(dialect))


def limiting_columns(connection: Connection) -> list[ColumnClause[str]]:
    """Limit the rest of a transaction in which users' code has run; on PostgreSQL, by columns of the next SELECT."""
    if connection.dialect.name == "postgresql":
        return [literal_column(call) for call in _calls(connection.dialect)]
    limit_session(connection)
    return []


def _calls(dialect: Dialect) -> list[str]:
    limits = {"idle_in_transaction_session_timeout": IDLE_SECONDS, "lock_timeout": LOCK_SECONDS}
    if (dialect.server_version_info or ()) >= WITH_WHOLE_LIMIT:  # type: ignore[attr-defined]
        limits["transaction_timeout"] = WHOLE_SECONDS
    return [f"set_config('{name}', '{seconds}s', true)" for name, seconds in limits.items()]


def enable_session_limits(engine: Engine) -> None:
    """Let the sessions of an engine that agentexec has opened get limits, where they cannot belong to the transaction."""
    if engine.dialect.name in ("mysql", "mariadb"):
        without = engine.execution_options(**{OPTION: False})
        event.listen(without, "engine_connect", unlimit_session)
        engine.update_execution_options(**{OPTION: True, FOR_USERS: without})


def limit_session(connection: Connection) -> None:
    """Limit the session of a connection, if its engine wants that and it is not limited yet."""
    if connection.get_execution_options().get(OPTION) and FLAG not in connection.info:
        _set(connection, _session_limits(connection.dialect))
        connection.info[FLAG] = True


def unlimit_session(connection: Connection) -> None:
    """Take the limits off the session of a connection that is given to users' code."""
    if connection.info.pop(FLAG, False):
        _set(connection, dict.fromkeys(_session_limits(connection.dialect), "DEFAULT"))


def engine_for_users(engine: Engine) -> Engine:
    """Return the engine on the same pool of connections whose sessions have no limits."""
    without: Engine = engine.get_execution_options().get(FOR_USERS, engine)
    return without


def _session_limits(dialect: Any) -> dict[str, object]:
    limits: dict[str, object] = {"innodb_lock_wait_timeout": LOCK_SECONDS}
    if not dialect.is_mariadb:
        limits["wait_timeout"] = MYSQL_IDLE_SECONDS
    elif dialect.server_version_info >= WITH_IDLE_LIMIT:
        limits["idle_transaction_timeout"] = IDLE_SECONDS
    return limits


def _set(connection: Connection, values: dict[str, object]) -> None:
    # By the driver: the connection of a user must not have begun a transaction.
    with contextlib.closing(connection.connection.cursor()) as cursor:
        cursor.execute("SET " + ", ".join(f"SESSION {name} = {value}" for name, value in values.items()))

"""Translation of database drivers' errors into agentexec's."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Engine, exc

from agentexec.db.sqlite import BUSY, file_problem
from agentexec.db.urls import safe_url, sqlite_file
from agentexec.errors import SchemaError, UnavailableError, UsageError
from agentexec.redaction import redact

OUTAGES = (exc.OperationalError, exc.InterfaceError)
"""SQLAlchemy's errors for a database that cannot be reached or is overloaded."""

TRANSIENT_STATES = ("08", "25006", "25P03", "25P04", "26000", "40", "53", "55", "57", "58")
"""SQLSTATE codes, or their first digits, of a server that will recover: lost connection, read-only after a failover,
ended because this process was silent in its transaction, prepared statement gone, conflict, out of resources, lock not available, shut down, I/O error."""

TRANSIENT_NUMBERS = (1021, 1040, 1114, 1205, 1213, 1290, 1792, 1836, 3100)
"""MySQL's numbers for the same: disk or table full, too many connections, lock wait, deadlock, read-only."""

CONTENDED_STATES = ("53300", "55")
"""Those of them that say that others hold a lock, or all connections."""

CONTENDED_NUMBERS = (1040, 1205)
"""MySQL's numbers for the same."""

REFUSALS = {
    "permission denied for ": "Grant the role of the URL what it lacks there, or use the role that owns agentexec's tables",
    "must be owner of ": "Use the role that owns agentexec's tables",
    "statement pooling mode": "PgBouncer runs in statement pooling mode there, which allows no transactions; set pool_mode to "
    "transaction or session",
    "unsupported startup parameter": "PgBouncer accepts none; remove the parameter from the URL, and set what it sets with ALTER "
    "ROLE … SET, or add it to PgBouncer's ignore_startup_parameters",
}
"""Parts of errors of PostgreSQL and PgBouncer that waiting does not end, and what to do."""

LOST_STATES = ("08", "25006", "25P03", "25P04", "40", "53", "57P")
"""Those of them after which a whole transaction can be repeated. A statement that took too long would again."""

LOST_NUMBERS = (1021, 1114, 1213, 1290, 1792, 1836)
"""MySQL's numbers for the same."""

WRONG_PARAMETERS = re.compile(r"\binvalid [\w ]*value|bad value for |could not parse network address")
"""Parts of the errors of PostgreSQL's driver about a parameter of the URL, which waiting does not correct."""

MISSING_TABLE = ("no such table", "no such column", "has no column", "(1146,", "(1054,")
"""Parts of SQLite's and MySQL's messages about a missing table or column; PostgreSQL has codes for it."""


@contextmanager
def translating_db_errors(engine: Engine) -> Generator[None]:
    """Turn a driver's errors into UnavailableError, to be waited out, or SchemaError, which waiting does not fix."""
    try:
        yield
    except exc.DBAPIError as error:
        if _is_missing_table(error):
            raise SchemaError(
                f"The database {safe_url(engine.url)} lacks tables or columns of this release; run `agentexec migrate`."
            ) from error
        if advice := _refusal(error):
            raise UsageError(
                f"The database {safe_url(engine.url)} cannot be used: {reason_of(error)}. {advice}."
            ) from error
        if _is_about_url(engine, error):
            raise UsageError(
                f"The database URL {safe_url(engine.url)} has a parameter with a wrong value: {reason_of(error)}; correct it."
            ) from error
        # sqlite3 has no class of its own for a file that is damaged or is not a database.
        if isinstance(error, OUTAGES) or type(error) is exc.DatabaseError or is_transient(error):
            away = UnavailableError(
                f"The database {safe_url(engine.url)} cannot be used: "
                f"{_file_problem(engine) or reason_of(error) + _advice(error)}."
            )
            away.contended = _is_contended(error)
            raise away from error
        raise
    except exc.TimeoutError as error:
        away = UnavailableError(
            f"The database {safe_url(engine.url)} has no free connection: {reason_of(error)}."
        )
        away.contended = True
        raise away from error


def loses_transaction(error: exc.DBAPIError) -> bool:
    """Return True if an error has ended its transaction although its statement is valid: the whole can be repeated."""
    state = getattr(error.orig, "sqlstate", None) or ""
    number = next(iter(getattr(error.orig, "args", ())), None)
    return error.connection_invalidated or state.startswith(LOST_STATES) or number in LOST_NUMBERS


def is_transient(error: exc.DBAPIError) -> bool:
    """Return True if an error says nothing about the statement: the same one succeeds when the server has recovered."""
    original = error.orig
    state = getattr(original, "sqlstate", None) or ""
    number = next(iter(getattr(original, "args", ())), None)
    return error.connection_invalidated or state.startswith(TRANSIENT_STATES) or number in TRANSIENT_NUMBERS


def _is_contended(error: exc.DBAPIError) -> bool:
    """Return True if other connections hold what a statement needs: a lock, or all connections of the server."""
    state = getattr(error.orig, "sqlstate", None) or ""
    number = next(iter(getattr(error.orig, "args", ())), None)
    busy = getattr(error.orig, "sqlite_errorcode", None) in BUSY
    return busy or state.startswith(CONTENDED_STATES) or number in CONTENDED_NUMBERS


def _is_about_url(engine: Engine, error: exc.DBAPIError) -> bool:
    """Return True if a connection to PostgreSQL was refused by its driver for a value in the URL."""
    is_connecting = error.statement is None and not getattr(error.orig, "sqlstate", None)
    return (
        is_connecting
        and engine.dialect.name == "postgresql"
        and bool(WRONG_PARAMETERS.search(str(error.orig)))
    )


def _advice(error: exc.DBAPIError) -> str:
    """Return what a developer may not know of SQLite's write lock, of replicas and of grants, if an error is about it."""
    if getattr(error.orig, "sqlite_errorcode", None) in BUSY:
        return " (ax.transaction() keeps SQLite's write lock until its tool returns)"
    # MySQL's messages name its options: --read-only, --super-read-only, innodb_read_only.
    if any(sign in str(error.orig).lower() for sign in ("read-only", "read only", "read_only")):
        return "; it takes no writes: use the primary, or end its read-only mode"
    if "command denied to user" in str(error.orig):
        return "; grant it to the user of the URL"
    if "readonly database" in str(error.orig):
        return "; it takes no writes: remove what makes it read-only from the URL"
    return ""


def _is_missing_table(error: exc.DBAPIError) -> bool:
    """Return True if an error says that a table or column is missing."""
    text = str(error.orig).lower()
    return any(sign in text for sign in MISSING_TABLE) or getattr(error.orig, "sqlstate", "") in (
        "42P01",
        "42703",
    )


def _refusal(error: exc.DBAPIError) -> str | None:
    """Return what to do about an error of a server or a pooler whose configuration does not allow agentexec's work."""
    text = str(error.orig)
    return next((advice for sign, advice in REFUSALS.items() if sign in text), None)


def reason_of(error: exc.SQLAlchemyError) -> str:
    """Return a driver's reason in one line, without the statement and its parameters."""
    text = str(getattr(error, "orig", None) or error).strip()
    return redact(text.splitlines()[0].rstrip(".")) if text else type(error).__name__


def _file_problem(engine: Engine) -> str | None:
    """Return what is wrong with the file of a SQLite database, if anything is."""
    path = sqlite_file(engine.url)
    return None if path is None else file_problem(path)

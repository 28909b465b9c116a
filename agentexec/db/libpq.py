"""Statements of PostgreSQL that are sent together, through libpq and without SQLAlchemy.

Compared with psycopg's own pipeline this is one message to the server instead of one for each statement, without those that
begin and commit a transaction, and half the processor time.
"""

from __future__ import annotations

import functools
import itertools
import re
import select
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from sqlalchemy import Engine, exc

PREPARED = "agentexec_prepared"
"""Key of a pooled connection's `info`: what the server has prepared for it."""

MAX_PREPARED = 100
"""Statements that are prepared for one connection. A statement counts once for each combination of its parameters' types."""

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")

Row = tuple[Any, ...]


@dataclass(slots=True)
class Prepared:
    """Statements that the server has prepared for one connection, and numbers for the next ones."""

    prefix: bytes = b"agentexec_"
    """Start of their names. A connection may have statements of two such objects."""
    names: dict[tuple[str, Any], bytes] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)


Statement = tuple[str, Mapping[str, Any]]
"""Statement with placeholders such as `%(name)s`, and their values."""


def run_transaction(engine: Engine, *statements: Statement) -> list[Row]:
    """Run statements as a transaction in one round trip, and return the rows of the last one.

    Args:
        engine: Engine of PostgreSQL with psycopg 3, where `can_batch`.
        statements: Statements of the transaction.

    Raises:
        DBAPIError: A statement failed, and with it all of them. The connection is not used again.
    """
    rows, _ = run_two_transactions(engine, statements, None)
    return rows


def run_two_transactions(
    engine: Engine, statements: Sequence[Statement], then: Statement | None
) -> tuple[list[Row], bool]:
    """Run statements as a transaction, and after its commit another statement as its own, in one round trip for both.

    Returns the rows of the last of the first ones, and whether the other statement has run. Raises DBAPIError as
    `run_transaction` does, and only for the first transaction.
    """
    dbapi: Any = engine.dialect.loaded_dbapi
    pooled = pooled_connection(engine)
    try:
        try:
            prepared = pooled.info.setdefault(PREPARED, Prepared())
            rows, has_followed = exchange(dbapi, pooled.driver_connection, prepared, statements, then)
        except dbapi.errors.InvalidSqlStatementName:
            # psycopg drops everything that is prepared after a rollback. Nothing has been done yet.
            prepared.names.clear()
            rows, has_followed = exchange(dbapi, pooled.driver_connection, prepared, statements, then)
    except dbapi.Error as error:
        raw = pooled.driver_connection
        if engine.dialect.is_disconnect(error, raw, None):
            forget_older_connections(engine, pooled)
        pooled.invalidate(error)
        raise exc.DBAPIError.instance(None, None, error, dbapi.Error, dialect=engine.dialect) from error
    except BaseException as error:
        pooled.invalidate(error)
        raise
    if then is not None and not has_followed:
        pooled.invalidate()
    pooled.close()
    return rows, has_followed


def forget_older_connections(engine: Engine, lost: Any) -> None:
    """Have the pool open new connections, as SQLAlchemy does when the server has ended one: the others are lost too."""
    engine.pool._invalidate(lost, _checkin=False)


def pooled_connection(engine: Engine) -> Any:
    """Take a connection from the pool. Raises DBAPIError if there is none and the server cannot be reached."""
    dbapi: Any = engine.dialect.loaded_dbapi
    try:
        return engine.raw_connection()
    except dbapi.Error as error:  # SQLAlchemy gives it as it is.
        raise exc.DBAPIError.instance(None, None, error, dbapi.Error, dialect=engine.dialect) from error


def has_news(raw: Any) -> bool:
    """Return True if the server has sent something to a connection between two statements, such as that it closes it."""
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def is_between_statements(dbapi: Any, raw: Any) -> bool:
    """Return True if nothing is left of the last `exchange` on a connection, and no transaction is open."""
    is_idle = raw.pgconn.transaction_status == dbapi.pq.TransactionStatus.IDLE
    return is_idle and raw.pgconn.pipeline_status == dbapi.pq.PipelineStatus.OFF


def exchange(
    dbapi: Any, raw: Any, prepared: Prepared, statements: Sequence[Statement], then: Statement | None
) -> tuple[list[Row], bool]:
    """Do what `run_two_transactions` does, on a connection of the driver, and raise the driver's errors."""
    transformer = dbapi.adapt.Transformer(raw)
    raw.pgconn.enter_pipeline_mode()
    for statement, values in statements:
        _send(dbapi, raw, prepared, transformer, statement, values)
    # Up to here the statements are one transaction, which needs no BEGIN and COMMIT.
    raw.pgconn.pipeline_sync()
    if then is not None:
        _send(dbapi, raw, prepared, transformer, *then)
        raw.pgconn.pipeline_sync()
    results, following = raw.wait(_exchange_both(raw.pgconn, dbapi, follows=then is not None))
    if then is None or following is not None:
        raw.pgconn.exit_pipeline_mode()
    for result in results:
        if result.status == dbapi.pq.ExecStatus.FATAL_ERROR:
            raise dbapi.errors.error_from_result(result)
    transformer.set_pgresult(results[-1])
    rows: list[Row] = transformer.load_rows(0, results[-1].ntuples, tuple)
    return rows, following is not None and all(
        result.status != dbapi.pq.ExecStatus.FATAL_ERROR for result in following
    )


def _send(
    dbapi: Any,
    raw: Any,
    prepared: Prepared,
    transformer: Any,
    statement: str,
    values: Mapping[str, Any],
) -> None:
    query, names = _numbered(statement)
    dumped = [values[name] for name in names]
    parameters = transformer.dump_sequence(dumped, [dbapi.adapt.PyFormat.AUTO] * len(dumped))
    key = (statement, transformer.types)
    name = prepared.names.get(key)
    # Behind a pooler each transaction may have another session, which does not know what an earlier one prepared.
    if name is None and raw.prepare_threshold is not None and len(prepared.names) < MAX_PREPARED:
        name = prepared.names[key] = prepared.prefix + b"%d" % next(prepared.numbers)
        raw.pgconn.send_prepare(name, query, transformer.types)
    if name is None:
        raw.pgconn.send_query_params(query, parameters, transformer.types, transformer.formats)
    else:
        raw.pgconn.send_query_prepared(name, parameters, transformer.formats)


@functools.cache
def _numbered(statement: str) -> tuple[bytes, Sequence[str]]:
    """Return a statement with the numbered placeholders of libpq, and the names of their values in order."""
    names = list(dict.fromkeys(_PLACEHOLDER.findall(statement)))
    query = _PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
    return query.replace("%%", "%").encode(), names


def _exchange_both(
    pgconn: Any, dbapi: Any, *, follows: bool
) -> Generator[int, int, tuple[list[Any], list[Any] | None]]:
    """Return the results of one transaction, and of a second one if it follows; None if the connection is lost by then."""
    results = yield from _exchange(pgconn, dbapi)
    if not follows:
        return results, None
    try:
        return results, (yield from _exchange(pgconn, dbapi))
    except dbapi.Error:
        return results, None  # the first transaction may have succeeded, and must not look as if it failed


def _exchange(pgconn: Any, dbapi: Any) -> Generator[int, int, list[Any]]:
    """Send what is buffered, and return the results up to the end of the pipeline."""
    while pgconn.flush():
        # The server may be waiting for its answers to be read.
        if (yield EVENT_READ | EVENT_WRITE) & EVENT_READ:
            pgconn.consume_input()
    results: list[Any] = []
    while True:
        while pgconn.is_busy():
            if (yield EVENT_READ) & EVENT_READ:
                pgconn.consume_input()
        result = pgconn.get_result()
        if result is None and pgconn.status == dbapi.pq.ConnStatus.BAD:
            raise dbapi.OperationalError("the connection is lost")
        if result is None:
            continue  # the end of one statement's results
        if result.status == dbapi.pq.ExecStatus.PIPELINE_SYNC:
            return results
        results.append(result)

"""The journal in the database: read whole, appended one row at a time, each append fenced by the task's epoch."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_jsonable_python
from sqlalchemy import Connection, Engine, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.activity.models import Activity
from agentexec.config import CONF
from agentexec.db.round_trips import batched, can_batch, run_in_one_round_trip
from agentexec.db.transactions import reading, writing
from agentexec.errors import AgentexecError, JournalConflictError, LeaseLostError, PayloadTooLargeError
from agentexec.journal.models import MAX_PATH, JournalEntry
from agentexec.task import Lease, Status

ACTIVITY: Any = Activity.__table__
JOURNAL: Any = JournalEntry.__table__


COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens")

_INSERT = insert(JOURNAL)
_LOCK = (
    select(ACTIVITY.c.status, ACTIVITY.c.epoch, ACTIVITY.c.usage, ACTIVITY.c.crashes_in_row)
    .where(ACTIVITY.c.agent_id == bindparam("id", type_=ACTIVITY.c.agent_id.type))
    .with_for_update()
)
_SPEND = (
    update(ACTIVITY)
    .where(ACTIVITY.c.agent_id == bindparam("id", type_=ACTIVITY.c.agent_id.type))
    .values(
        usage=bindparam("spent", type_=ACTIVITY.c.usage.type),
        **{name: func.coalesce(ACTIVITY.c[name], 0) + bindparam(f"more_{name}") for name in COUNTS},
    )
)
RESET_CRASH_STREAK = (
    update(ACTIVITY)
    .where(ACTIVITY.c.agent_id == bindparam("id", type_=ACTIVITY.c.agent_id.type))
    .values(crashes_in_row=0)
)
_APPEND = f"""
WITH held AS (
    SELECT agent_id, crashes_in_row FROM {ACTIVITY.name}
    WHERE agent_id = %(agent_id)s AND epoch = %(epoch)s AND status = '{Status.RUNNING.name}' FOR UPDATE
), got_on AS (
    UPDATE {ACTIVITY.name} a SET crashes_in_row = 0 FROM held
    WHERE a.agent_id = held.agent_id AND held.crashes_in_row > 0 AND %(step)s
)
INSERT INTO {JOURNAL.name} (agent_id, path, seq, kind, input_hash, value, epoch, created_at)
SELECT agent_id, %(path)s, %(seq)s, %(kind)s, %(input_hash)s, %(value)s, %(epoch)s, %(now)s FROM held
RETURNING seq
"""  # noqa: S608 - the names of our tables


class FactKind(enum.StrEnum):
    """What a row records."""

    RUN = "run"
    MODEL = "model"
    INTENT = "intent"
    OUTCOME = "outcome"
    RAISED = "raised"


STEPS = (FactKind.MODEL, FactKind.OUTCOME)
"""What is recorded once and never done again. A call that raises may record its intent and error in every attempt."""


class Fact(NamedTuple):
    """One row: what happened at `path`. `value` is JSON text, `input_hash` the digest of what it was done with."""

    path: str
    seq: int
    kind: FactKind
    input_hash: str
    value: str


class Usage(NamedTuple):
    """What one model response cost. `input_tokens` include the cached ones."""

    model: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


def load_facts(engine: Engine, agent_id: UUID) -> list[Fact]:
    """Every fact of a task, in the order of its paths and their counts. Raises UnavailableError."""
    query = (
        select(JOURNAL.c.path, JOURNAL.c.seq, JOURNAL.c.kind, JOURNAL.c.input_hash, JOURNAL.c.value)
        .where(JOURNAL.c.agent_id == agent_id)
        .order_by(JOURNAL.c.path, JOURNAL.c.seq)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    try:
        return [Fact(row.path, row.seq, FactKind(row.kind), row.input_hash, row.value) for row in rows]
    except ValueError:
        raise AgentexecError(
            f"The journal of task {agent_id} holds a row of an unknown kind, so the task cannot go on."
        ) from None


def append_fact(engine: Engine, lease: Lease, fact: Fact, usage: Usage | None, now: datetime) -> None:
    """Record one fact, and the usage that belongs to it, in one transaction.

    Calling it again after an error whose outcome is unknown is safe: a fact that is there already is not added twice.
    Raises LeaseLostError where another worker has the task, JournalConflictError where another fact stands in
    its place, UnavailableError.
    """
    try:
        # What a crash of the database server itself may lose is a response to be asked for again, or an outcome whose
        # intent says that it is unknown. An intent must be on disk before its call is made.
        relaxed = fact.kind is not FactKind.INTENT
        if usage is None and can_batch(engine.dialect):
            values = {
                "agent_id": lease.agent_id,
                "epoch": lease.epoch,
                "now": now,
                "step": fact.kind in STEPS,
            }
            if not run_in_one_round_trip(engine, _APPEND, {**values, **fact._asdict()}, relaxed=relaxed):
                raise LeaseLostError(lease.agent_id)
        else:
            with writing(engine, relaxed=relaxed) as connection:
                insert_fact(connection, lease, fact, usage, now, commit=True)
    except IntegrityError as error:
        if not _is_recorded(engine, lease, fact):
            raise JournalConflictError(lease.agent_id, fact.path) from error


def insert_fact(
    connection: Connection,
    lease: Lease,
    fact: Fact,
    usage: Usage | None,
    now: datetime,
    *,
    commit: bool = False,
) -> None:
    """`append_fact` as a part of the caller's transaction; `commit`: which ends with it."""
    row = _lock(connection, lease)
    with batched(connection, commit=commit):
        connection.execute(
            _INSERT,
            {"agent_id": lease.agent_id, "epoch": lease.epoch, "created_at": now, **fact._asdict()},
        )
        if usage is not None:
            _add_usage(connection, lease.agent_id, usage, row.usage or {})
        if row.crashes_in_row and fact.kind in STEPS:
            connection.execute(RESET_CRASH_STREAK, {"id": lease.agent_id})


def require_lease(connection: Connection, lease: Lease) -> None:
    """Lock a task's row for the rest of the transaction.

    Raises LeaseLostError unless the task is RUNNING under the lease: its worker was taken for dead, or the task was
    canceled.
    """
    _lock(connection, lease)


def _lock(connection: Connection, lease: Lease) -> Any:
    row = connection.execute(_LOCK, {"id": lease.agent_id}).one_or_none()
    if row is None or row.status is not Status.RUNNING or row.epoch != lease.epoch:
        raise LeaseLostError(lease.agent_id)
    return row


@contextmanager
def open_transaction(engine: Engine) -> Generator[Connection]:
    """A transaction for a caller's own effects, to be ended with `insert_fact`; rolled back on an error."""
    with writing(engine) as connection:
        yield connection


def add_to(spent: dict[str, dict[str, int]], usage: Usage) -> dict[str, dict[str, int]]:
    """Usage by model with one response more."""
    counts = usage._asdict()
    model = counts.pop("model")
    before = spent.get(model, {})
    return {**spent, model: {name: before.get(name, 0) + count for name, count in counts.items()}}


def _add_usage(
    connection: Connection, agent_id: UUID, usage: Usage, spent: dict[str, dict[str, int]]
) -> None:
    more = {f"more_{name}": getattr(usage, name) for name in COUNTS}
    connection.execute(_SPEND, {"id": agent_id, "spent": add_to(spent, usage), **more})


def _is_recorded(engine: Engine, lease: Lease, fact: Fact) -> bool:
    """True if the very fact stands in the journal: the commit of an earlier try was not confirmed."""
    query = select(JOURNAL.c.value, JOURNAL.c.epoch).where(
        JOURNAL.c.agent_id == lease.agent_id, JOURNAL.c.path == fact.path, JOURNAL.c.seq == fact.seq
    )
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    return row is not None and (row.value, row.epoch) == (fact.value, lease.epoch)


def dump(value: Any, what: str) -> str:
    """A JSON value as text; raises PayloadTooLargeError above AGENTEXEC_MAX_PAYLOAD_BYTES."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which no database takes
        text = json.dumps(value, separators=(",", ":"))
        size = len(text)
    if size > CONF.max_payload_bytes:
        raise PayloadTooLargeError(
            f"{what} is {size} bytes of JSON, more than the {CONF.max_payload_bytes} that the journal takes; "
            "return less, or raise AGENTEXEC_MAX_PAYLOAD_BYTES."
        )
    return text


def digest(value: Any) -> str:
    """A hash of a value's JSON form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """A value's JSON form, the same in every process; what has no such form stands there as its type."""
    return json.dumps(value, sort_keys=True, default=_plain, separators=(",", ":"))


def _plain(value: Any) -> Any:
    return to_jsonable_python(
        value, by_alias=True, bytes_mode="base64", fallback=lambda item: f"<{type(item).__qualname__}>"
    )


def fit_path(path: str) -> str:
    """A path that its column takes; the end of any other one is replaced by its hash.

    MariaDB takes texts for equal that differ in the spaces at their end.
    """
    if len(path) <= MAX_PATH and not path.endswith(" "):
        return path
    return f"{path[: MAX_PATH - 65]}~{hashlib.sha256(path.encode()).hexdigest()}"

"""SQL that differs between databases, chosen once for each backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ARRAY, BindParameter, Engine, Text, Uuid, bindparam

from agentexec.db.columns import IdList, TextList


def _server_clock(**values: Any) -> dict[str, Any]:
    return values


def _local_clock(**values: Any) -> dict[str, Any]:
    values["now"] = time.time_ns() // 1000
    return values


RANK_ROW = "UPDATE {queue} SET lane = :lane, at = :turn WHERE agent_id = :id"
"""Statement that moves one task to a lane and gives it a turn there."""


@dataclass(frozen=True, slots=True)
class SqlDialect:
    """Fragments of SQL for one database."""

    now: str
    """Current time in microseconds since the epoch."""

    start: str
    """Time at which the statement began. An index is searched by it, as `now` may change from row to row."""

    params: Callable[..., dict[str, Any]]
    """Function that returns its keyword arguments as parameters, with `now` where the database has no clock."""

    ids: BindParameter[Any]
    """Parameter `ids`. Where the database can, one parameter holds any number of ids; see `agentexec.db.columns.id_in`."""

    in_ids: str
    """Condition that a column is one of `ids`."""

    names: BindParameter[Any]
    """Parameter `names`, a list of texts; one parameter where `ids` is one."""

    in_names: str
    """Condition that a column is one of `names`."""

    listed: str | None = None
    """Table with the `key` and the `value` of each of `ids`, where one parameter holds them as JSON."""

    insert: str = "INSERT"
    on_conflict: str = " ON CONFLICT DO NOTHING"
    """End of an INSERT that leaves existing rows as they are."""

    for_update: str = " FOR UPDATE"
    skip_locked: str = " FOR UPDATE SKIP LOCKED"
    rank: str = RANK_ROW
    """Statement that moves a task to a lane and gives it a turn there."""

    ranks: Literal["rows", "lists", "json"] = "rows"
    """Parameters of `rank`: `id` and `turn` of each task, lists of `ids` and `turns`, or `turns` by id as JSON."""


_SQLITE = SqlDialect(
    # Only one host opens the file, so the local clock is the same for all processes.
    now=":now",
    start=":now",
    params=_local_clock,
    ids=bindparam("ids", type_=IdList()),
    in_ids="IN (SELECT value FROM json_each(:ids))",
    names=bindparam("names", type_=TextList()),
    in_names="IN (SELECT value FROM json_each(:names))",
    listed="json_each(:ids)",
    # The transaction holds the file's write lock.
    for_update="",
    skip_locked="",
    rank="UPDATE {queue} SET lane = :lane, at = ranked.value FROM json_each(:turns) AS ranked WHERE agent_id = ranked.key",
    ranks="json",
)
_POSTGRESQL = SqlDialect(
    # The database's clock is the same for all hosts.
    now="CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    start="CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)",
    params=_server_clock,
    ids=bindparam("ids", type_=ARRAY(Uuid())),
    in_ids="= ANY(CAST(:ids AS UUID[]))",
    names=bindparam("names", type_=ARRAY(Text())),
    in_names="= ANY(CAST(:names AS TEXT[]))",
    rank="UPDATE {queue} SET lane = :lane, at = ranked.turn "
    "FROM unnest(CAST(:ids AS UUID[]), CAST(:turns AS BIGINT[])) AS ranked (id, turn) WHERE agent_id = ranked.id",
    ranks="lists",
)
_OTHER = replace(
    _POSTGRESQL,
    ids=bindparam("ids", expanding=True, type_=Uuid()),
    in_ids="IN :ids",
    names=bindparam("names", expanding=True),
    in_names="IN :names",
    rank=RANK_ROW,
    ranks="rows",
)
_MYSQL = replace(
    _OTHER,
    now="CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
    start="CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
    insert="INSERT IGNORE",
    on_conflict="",
    # The rows are there. Drivers send many of them in one statement only if it is an INSERT.
    rank="INSERT INTO {queue} (agent_id, queue, priority, lane, at, epoch) "
    "VALUES (:id, :queue, :priority, :lane, :turn, :epoch) ON DUPLICATE KEY UPDATE lane = VALUES(lane), at = VALUES(at)",
)
_DIALECTS = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}


def dialect_of(engine: Engine) -> SqlDialect:
    """Return the dialect of an engine's database."""
    return _DIALECTS.get(engine.dialect.name, _OTHER)

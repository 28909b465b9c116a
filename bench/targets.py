"""Targets: agentexec on several kinds of deployment, each with servers of its own."""

from __future__ import annotations

import importlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES, Status
from tests.servers import DynamoDB, MariaDB, Postgres, Server, Valkey

USUAL = ("embedded", "redis+sqlite", "redis+postgres")
NAMES = (*USUAL, "postgres", "mariadb", "redis+mariadb", "dynamodb+postgres")

DYNAMODB_BACKEND = "agentexec.state.dynamodb_backend"

POLL = 0.01
"""Seconds between two checks whether all tasks are over, each of which is a cheap query."""


class BenchError(RuntimeError):
    """A measurement could not be taken; the message says why."""


@dataclass(frozen=True)
class Target:
    """Deployment for which this process is configured, as a web application would be."""

    name: str
    folder: Path
    database_url: str
    valkey: Valkey | None
    servers: str
    postgres: Postgres | None = None
    mariadb: MariaDB | None = None
    dynamodb: DynamoDB | None = None
    """The emulator, of which only the number of requests says something."""

    @property
    def database_server(self) -> Server | None:
        return self.postgres or self.mariadb

    @property
    def redis_url(self) -> str | None:
        return self.valkey.url if self.valkey else None

    @property
    def environment(self) -> dict[str, str]:
        """Settings for the processes of the deployment."""
        redis_url = self.redis_url
        return {
            "AGENTEXEC_DATABASE_URL": self.database_url,
            **({"AGENTEXEC_REDIS_URL": redis_url} if redis_url else {}),
            **({"AGENTEXEC_STATE_BACKEND": DYNAMODB_BACKEND} if self.dynamodb else {}),
        }

    def reset(self) -> None:
        """Empty the database and Redis. Call it only while no workers run."""
        engine = RUNTIME.engine
        with engine.begin() as connection:
            for table in reversed(ax.Base.metadata.sorted_tables):
                if engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(f'TRUNCATE "{table.name}" CASCADE')
                else:
                    connection.execute(table.delete())
        if self.valkey is not None:
            self.valkey.flush()
        # Mark the index as intact; otherwise the workers would first rebuild it.
        RUNTIME.backend.mark_intact(ax.CONF.queue_name)

    def wait_until_over(self, timeout: float = 300.0) -> float:
        """Wait until no task is queued or running, and return the time at which that was seen."""
        query = select(Activity.agent_id).where(Activity.status.in_(ACTIVE_STATUSES)).limit(1)
        deadline = time.monotonic() + timeout
        with RUNTIME.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while connection.execute(query).first() is not None:
                if time.monotonic() > deadline:
                    raise BenchError(f"tasks are not over after {timeout:g} s: {self.statuses()}")
                time.sleep(POLL)
        return time.time()

    def span(self, since: datetime, expected: int) -> tuple[float, float]:
        """From the first start to the last end of the tasks accepted since, by the record, as UNIX times."""
        query = select(func.min(Activity.started_at), func.max(Activity.finished_at), func.count())
        complete = (Activity.created_at >= since, Activity.status == Status.COMPLETE)
        with RUNTIME.engine.connect() as connection:
            first, last, count = connection.execute(query.where(*complete)).one()
        if count != expected:
            raise BenchError(f"{expected} tasks should be complete: {self.statuses()}")
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        return first.timestamp(), last.timestamp()

    def statuses(self) -> dict[str, int]:
        """Return the number of activities of each status."""
        query = select(Activity.status, func.count()).group_by(Activity.status)
        with RUNTIME.engine.connect() as connection:
            return {str(status): count for status, count in connection.execute(query)}


@contextmanager
def opened(name: str, *, connections: int = 200) -> Generator[Target]:
    """Start the servers of a target and configure this process for it; both are undone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentexec-bench-")))
        valkey = stack.enter_context(Valkey()) if name.startswith("redis+") else None
        servers = [_valkey_version(valkey)] if valkey else []
        postgres = mariadb = dynamodb = None
        if name.endswith("postgres"):
            postgres = stack.enter_context(
                Postgres(fsync=True, settings={"max_connections": str(connections)})
            )
            database_url = postgres.create_database("bench")
        elif name.endswith("mariadb"):
            settings = {"max-connections": str(connections), "innodb-buffer-pool-size": "1G"}
            mariadb = stack.enter_context(MariaDB(fsync=True, settings=settings))
            database_url = mariadb.create_database("bench")
        else:
            database_url = f"sqlite:///{folder / 'bench.db'}"
        if name.startswith("dynamodb+"):
            dynamodb = stack.enter_context(DynamoDB())
            servers.append("DynamoDB as moto emulates it")
            for variable, value in dynamodb.environment.items():
                os.environ[variable] = value
                stack.callback(os.environ.pop, variable)
            ax.CONF.state_backend = DYNAMODB_BACKEND
            stack.callback(ax.CONF.model_fields_set.discard, "state_backend")
        ax.CONF.redis_url = valkey.url if valkey else None
        ax.configure(database_url=database_url)
        stack.callback(RUNTIME.close)
        if dynamodb:
            # Imported on use: AWS's client takes long to import.
            importlib.import_module(DYNAMODB_BACKEND).create_storage(ax.CONF)
        servers.append(_database_version())
        ax.Base.metadata.create_all(RUNTIME.engine)
        yield Target(name, folder, database_url, valkey, ", ".join(servers), postgres, mariadb, dynamodb)


def _valkey_version(valkey: Valkey) -> str:
    with valkey.client() as client:
        facts: dict[str, Any] = client.info("server")
    return f"Valkey {facts.get('valkey_version', facts.get('redis_version'))}"


def _database_version() -> str:
    if RUNTIME.engine.dialect.name == "sqlite":
        return f"SQLite {sqlite3.sqlite_version} (WAL, synchronous=NORMAL)"
    with RUNTIME.engine.connect() as connection:
        if RUNTIME.engine.dialect.name != "postgresql":
            query = "SELECT VERSION(), @@innodb_flush_log_at_trx_commit"
            return "MariaDB {} (flush at commit {})".format(*connection.exec_driver_sql(query).one())
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("server_version", "fsync", "synchronous_commit")
        ]
    return "PostgreSQL {} (fsync {}, synchronous_commit {})".format(*shown)

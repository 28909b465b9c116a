"""Places of a deployment that can be copied between two processes: a SQLite file, or databases of PostgreSQL with a queue.

A place is a folder. On servers, the database has the folder's name, and the queue, which is that of the place in use, is a
file in the folder while another place is used.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

import agentexec as ax
from agentexec.config import CONF
from tests.servers import HOST, Postgres, Valkey
from tests.waiting import wait_until

MAX_CRASHES = 100

OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"


class Places:
    """Places whose record and queue are in a SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def use(self, place: Path) -> None:
        """Let this process work in a place."""
        ax.configure(database_url=f"sqlite:///{place / 'test.db'}")
        CONF.max_crashes = MAX_CRASHES

    @contextmanager
    def in_use(self, place: Path) -> Iterator[None]:
        """Lend a place to the process that the block starts and waits for."""
        yield

    def new(self) -> Path:
        """Return an empty place."""
        place = self._folder / f"place{next(self._numbers)}"
        place.mkdir()
        return place

    def copy(self, place: Path) -> Path:
        """Return a copy of a place that is not in use."""
        copy = self._folder / f"place{next(self._numbers)}"
        shutil.copytree(place, copy)
        return copy

    def remove(self, place: Path) -> None:
        shutil.rmtree(place)


class PlacesOnServers(Places):
    """Places whose record is in PostgreSQL and whose queue is in Redis, or in PostgreSQL too."""

    def __init__(self, folder: Path, postgres: Postgres, broker: Valkey | None) -> None:
        super().__init__(folder)
        self._postgres = postgres
        self._broker = broker

    def use(self, place: Path) -> None:
        ax.configure(database_url=f"postgresql+psycopg://postgres@{HOST}:{self._postgres.port}/{place.name}")
        CONF.max_crashes, CONF.redis_url = MAX_CRASHES, self._broker.url if self._broker else None

    @contextmanager
    def in_use(self, place: Path) -> Iterator[None]:
        self._load_queue(place / "queue")
        yield
        self._save_queue(place / "queue")
        # What the server still does for a process that was killed is over soon, but not at once.
        self._execute(OTHERS, place.name)
        wait_until(lambda: not self._execute(OTHERS, place.name))

    def new(self) -> Path:
        place = super().new()
        self._postgres.create_database(place.name)
        return place

    def copy(self, place: Path) -> Path:
        copy = super().copy(place)
        self._execute(f'CREATE DATABASE "{copy.name}" TEMPLATE "{place.name}" STRATEGY file_copy')
        return copy

    def remove(self, place: Path) -> None:
        super().remove(place)
        self._postgres.drop_database(place.name)

    def _load_queue(self, file: Path) -> None:
        if self._broker is None:
            return
        with redis.Redis.from_url(self._broker.url) as client:
            client.flushall()
            if file.exists():
                for key, value in json.loads(file.read_text()).items():
                    client.restore(key, 0, bytes.fromhex(value))

    def _save_queue(self, file: Path) -> None:
        if self._broker is None:
            return
        with redis.Redis.from_url(self._broker.url) as client:
            found = {key.decode(): client.dump(key) for key in client.scan_iter()}
        file.write_text(json.dumps({key: value.hex() for key, value in found.items() if value}))

    def _execute(self, statement: str, *values: str) -> list[tuple[object, ...]]:
        conninfo = f"host={HOST} port={self._postgres.port} user=postgres dbname=postgres"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

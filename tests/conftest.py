"""Fixtures over real servers.

By default the databases are SQLite and PostgreSQL and the broker is Valkey, and a test of whole processes runs on one
combination of them. With AGENTEXEC_TEST_SERVERS=all, as in `.ci/run`, it runs on every one, and MariaDB, redis-server
and PgBouncer join them and must be installed. With AGENTEXEC_TEST_SERVERS=few there are only SQLite and Valkey, for a further Python.
Combinations that are not chosen are not parameters, so no test is ever skipped.
"""

from __future__ import annotations

import gc
import itertools
import os
import weakref
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest

import agentexec as ax
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI
from tests.longest_first import longest_first
from tests.redis_clusters import Cluster
from tests.servers import (
    DynamoDB,
    MariaDB,
    PgBouncer,
    Postgres,
    RedisServer,
    Server,
    Valkey,
    free_port,
    memory_folder,
)
from tests.tables import copy_database, reset_database
from tests.waiting import patient

S = TypeVar("S", bound=Server)
V = TypeVar("V", bound=Valkey)

CHOICE = os.environ.get("AGENTEXEC_TEST_SERVERS", "")
ALL_SERVERS = CHOICE == "all"
SERVER_DATABASES = [*(["postgres"] if CHOICE != "few" else []), *(["mariadb"] if ALL_SERVERS else [])]
DATABASES: list[Any] = [
    "sqlite",
    # What is the same on each database is left to CI; tests of what is different name their database.
    *(pytest.param(name, marks=pytest.mark.thorough) for name in SERVER_DATABASES),
]
BROKERS = ["valkey", *(["redis_server"] if ALL_SERVERS else [])]

_numbers = itertools.count(1)

if folder := memory_folder():
    # pytest's folders with the SQLite files go there too: tests keep nothing.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests the time that slow machines need, and start the longest first where several processes share them."""
    for item in items:
        own = item.get_closest_marker("timeout")
        limit = float(own.args[0] if own else item.config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(patient(limit)), append=False)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = longest_first(items, workers, lambda item: item.nodeid.partition("::")[0])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the modules and the tests, which stay, out of every collection of garbage: it would walk through them all."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """Restore which settings are set explicitly: `monkeypatch` restores a value by setting it, which counts as one."""
    explicit = set(ax.CONF.model_fields_set)
    yield
    ax.CONF.model_fields_set.intersection_update(explicit)


@pytest.fixture(autouse=True)
def own_pools(own_settings: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test see the pools of its own module only; those of other modules have tasks of the same names."""
    pools = [value for value in vars(request.module).values() if isinstance(value, ax.Pool)]
    monkeypatch.setattr(RUNTIME, "_registries", weakref.WeakSet(pool.registry for pool in pools))


class Servers:
    """Servers of this session, each started on first use."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.database_urls: dict[str, str] = {}

    @cached_property
    def valkey(self) -> Valkey:
        return self._open.enter_context(Valkey())

    @cached_property
    def redis_server(self) -> RedisServer:
        return self._open.enter_context(RedisServer())

    @cached_property
    def cluster(self) -> Cluster:
        return self._open.enter_context(Cluster())

    @cached_property
    def postgres(self) -> Postgres:
        return self._open.enter_context(Postgres(fsync=False))

    @cached_property
    def mariadb(self) -> MariaDB:
        return self._open.enter_context(MariaDB(fsync=False))

    @cached_property
    def pgbouncer(self) -> PgBouncer:
        return self._open.enter_context(PgBouncer(self.postgres))

    @cached_property
    def dynamodb(self) -> DynamoDB:
        return self._open.enter_context(DynamoDB())

    @cached_property
    def mock_openai(self) -> MockOpenAI:
        # With the key of the mock it would send traces to OpenAI, and tell the log of a later test that it could not.
        import_module("agents.tracing.processors").default_exporter().export = lambda items: None
        return self._open.enter_context(MockOpenAI(port=free_port()))

    def close(self) -> None:
        self._open.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    try:
        yield servers
    finally:
        servers.close()


@pytest.fixture
def valkey(servers: Servers) -> Valkey:
    """A Valkey that runs and is empty. A test may stop, kill, pause or restart it."""
    return reset_server(servers.valkey)


@pytest.fixture
def redis_server(servers: Servers) -> RedisServer:
    return reset_server(servers.redis_server)


@pytest.fixture
def cluster(servers: Servers) -> Cluster:
    """An empty cluster of three primaries with a replica each. A test may neither stop its nodes nor move slots."""
    servers.cluster.flush()
    return servers.cluster


@pytest.fixture
def postgres(servers: Servers) -> Postgres:
    """A PostgreSQL that runs. A test may stop, kill, pause or restart it."""
    return ensure_running(servers.postgres)


@pytest.fixture
def mariadb(servers: Servers) -> MariaDB:
    return ensure_running(servers.mariadb)


@pytest.fixture
def pgbouncer(postgres: Postgres, servers: Servers) -> PgBouncer:
    """A PgBouncer in transaction mode in front of `postgres`."""
    return ensure_running(servers.pgbouncer)


@pytest.fixture
def dynamodb(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> DynamoDB:
    """A DynamoDB that runs, and is the one of this process."""
    server = ensure_running(servers.dynamodb)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def valkey_url(valkey: Valkey) -> str:
    return valkey.url


@pytest.fixture
def redis_server_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    yield from fresh_database(postgres)


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> Iterator[str]:
    yield from fresh_database(mariadb)


@pytest.fixture
def mock_openai(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> MockOpenAI:
    """A model server without a script yet; this process and those it starts use it as OpenAI."""
    server = servers.mock_openai
    server.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "mock")
    # The SDK keeps one HTTP client per process, whose connections belong to the event loop of an earlier test.
    monkeypatch.setattr("agents.models.openai_provider._http_client", None)
    return server


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The SQLAlchemy URL of an empty database, once per kind of database."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(params=BROKERS)
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty Redis, once per kind of server."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def sqlite_tables(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return copy_database(tmp_path_factory.getbasetemp() / "with_tables.db", tmp_path)


@pytest.fixture
def postgres_tables(postgres: Postgres, servers: Servers) -> str:
    return reset_database(postgres, servers.database_urls)


@pytest.fixture
def pgbouncer_tables(pgbouncer: PgBouncer, postgres_tables: str) -> str:
    return pgbouncer.url_of(postgres_tables)


@pytest.fixture
def mariadb_tables(mariadb: MariaDB, servers: Servers) -> str:
    return reset_database(mariadb, servers.database_urls)


@pytest.fixture(params=DATABASES)
def tables_url(request: pytest.FixtureRequest) -> str:
    """The SQLAlchemy URL of a database with the tables and no rows, once per kind of database."""
    return request.getfixturevalue(f"{request.param}_tables")


def ensure_running(server: S) -> S:
    """Return the server, running and awake whatever the previous test did to it."""
    if server.running:
        server.resume()
    server.start()
    return server


def reset_server(server: V) -> V:
    ensure_running(server).flush()
    return server


def fresh_database(server: Postgres | MariaDB) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield server.create_database(name)
    ensure_running(server).drop_database(name)

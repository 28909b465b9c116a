"""The conformance suite on every backend of ours, and what each promises beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.db.transactions import writing
from agentexec.errors import UsageError
from agentexec.state import redis_backend, sql_backend
from agentexec.state.backend import Depth, StateBackend
from agentexec.state.loading import load_backend
from agentexec.state.redis_backend import RedisBackend
from agentexec.state.sql_backend import SqlBackend
from agentexec.state.sql_models import Counter, EventRow, Follow, Leader, Message, QueueEntry, Watch
from agentexec.task import Entry, new_agent_id
from agentexec.testing.backend_suite import BackendSuite
from tests.redis_clusters import Cluster


class Suite(BackendSuite):
    """The suite with time for a slow machine, but less than a wait that nothing ends takes."""

    pick_up_seconds = 4.0


class TestRedisBackend(Suite):
    @pytest.fixture
    def backend(self, redis_url: str) -> Iterator[StateBackend]:
        backend = redis_backend.create(Settings(redis_url=redis_url), create_engine("sqlite://"))
        backend.ping()
        yield backend
        backend.close()

    def empty(self, backend: StateBackend) -> None:
        assert isinstance(backend, RedisBackend)
        backend._single_try_client.flushall()

    def test_it_refuses_to_join_a_transaction(self, backend: StateBackend, queue: str) -> None:
        engine = create_engine("sqlite://")
        with engine.connect() as connection, pytest.raises(UsageError, match="without transaction="):
            backend.finish(queue, [], transaction=connection)


@pytest.mark.thorough
class TestSignedRedisBackend(Suite):
    """Signing changes nothing for those who have the key."""

    @pytest.fixture
    def backend(self, valkey_url: str) -> Iterator[StateBackend]:
        settings = Settings(
            redis_url=valkey_url, signing_key=SecretStr("a key for the suite, an older key of it")
        )
        backend = redis_backend.create(settings, create_engine("sqlite://"))
        backend.ping()
        yield backend
        backend.close()

    def empty(self, backend: StateBackend) -> None:
        assert isinstance(backend, RedisBackend)
        backend._single_try_client.flushall()


@pytest.mark.thorough
class TestRedisClusterBackend(Suite):
    """A cluster of several shards serves as one server does, for a user with the least rights and by RESP2."""

    @pytest.fixture
    def backend(self, cluster: Cluster) -> Iterator[StateBackend]:
        self.cluster = cluster
        backend = redis_backend.create(
            Settings(redis_url=f"{cluster.limited_url()}?protocol=2"), create_engine("sqlite://")
        )
        backend.ping()
        yield backend
        backend.close()

    def empty(self, backend: StateBackend) -> None:
        self.cluster.flush()


class TestSqlBackend(Suite):
    @pytest.fixture
    def backend(self, tables_url: str) -> Iterator[StateBackend]:
        engine = open_engine(tables_url)
        backend = sql_backend.create(Settings(), engine)
        backend.ping()
        yield backend
        backend.close()
        engine.dispose()

    def empty(self, backend: StateBackend) -> None:
        with writing(engine_of(backend)) as connection:
            for model in (QueueEntry, Watch, Message, EventRow, Follow, Counter, Leader):
                connection.execute(text(f"DELETE FROM {model.__tablename__}"))

    def test_a_push_is_part_of_the_transaction(self, backend: StateBackend, queue: str) -> None:
        lost, kept = new_agent_id(), new_agent_id()
        assert backend.transactional
        with pytest.raises(ZeroDivisionError), writing(engine_of(backend)) as connection:
            backend.push(queue, [Entry(lost)], transaction=connection)
            raise ZeroDivisionError
        with writing(engine_of(backend)) as connection:
            backend.push(queue, [Entry(kept)], transaction=connection)
        backend.wake(queue, 1)
        assert backend.unknown_tasks(queue, [lost, kept]) == [lost]
        assert backend.depth(queue) == Depth(ready=1, delayed=0, leased=0)

    def test_finishing_is_part_of_the_transaction(self, backend: StateBackend, queue: str) -> None:
        backend.push(queue, [Entry(new_agent_id()), Entry(new_agent_id())])
        kept, done = backend.claim(queue, "worker", limit=2, low_quota=0, lease_seconds=60).leases
        with pytest.raises(ZeroDivisionError), writing(engine_of(backend)) as connection:
            backend.finish(queue, [kept], transaction=connection)
            raise ZeroDivisionError
        with writing(engine_of(backend)) as connection:
            backend.finish(queue, [done], transaction=connection)
        assert backend.worker_leases(queue, "worker") == [kept]


def engine_of(backend: StateBackend) -> Any:
    assert isinstance(backend, SqlBackend)
    return backend._engine


def test_every_backend_of_ours_loads_by_its_name(redis_url: str) -> None:
    settings, engine = Settings(redis_url=redis_url), create_engine("sqlite://")
    for name in ("redis_backend", "sql_backend", "memory_backend"):
        assert isinstance(load_backend(f"agentexec.state.{name}", settings, engine), StateBackend)

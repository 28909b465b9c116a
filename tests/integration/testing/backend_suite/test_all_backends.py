"""The conformance suite on every backend of ours, and what each promises beyond it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.db.transactions import writing
from agentexec.errors import UsageError
from agentexec.state import dynamodb_backend, redis_backend, sql_backend
from agentexec.state.backend import Depth, StateBackend
from agentexec.state.dynamodb_backend.table import Table
from agentexec.state.loading import load_backend
from agentexec.state.redis_backend import RedisBackend
from agentexec.state.sql_backend import SqlBackend
from agentexec.state.sql_models import Counter, EventRow, Follow, Leader, Message, QueueEntry, Watch
from agentexec.task import Entry, new_agent_id
from agentexec.testing.backend_suite import BackendSuite
from tests.redis_clusters import Cluster
from tests.servers import DynamoDB


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


class InTurns:
    """Several backends of one server, as processes have them: each call goes to the next one."""

    def __init__(self, backends: Sequence[StateBackend]) -> None:
        self._backends = itertools.cycle(backends)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._backends), name)


DYNAMODB_BACKENDS: dict[str, StateBackend] = {}
"""Backends by the URL of the server: AWS's client takes longer to make than most tests."""


@pytest.mark.thorough
class TestDynamoBackend(Suite):
    """Two processes agree about everything. The rules of turns and groups are the memory backend's own code."""

    test_random_calls_keep_the_promises = None
    test_a_task_waits_for_one_turn_of_the_other_keys = None
    test_a_key_whose_tasks_come_one_by_one_has_no_advantage = None
    test_a_key_is_not_behind_because_it_was_alone = None
    test_priority_is_above_turns = None
    test_a_backlog_delays_the_task_of_another_key_by_one_turn = None

    @pytest.fixture
    def backend(self, dynamodb: DynamoDB) -> StateBackend:
        if dynamodb.url not in DYNAMODB_BACKENDS:
            dynamodb_backend.create_storage(Settings())
            backends = [dynamodb_backend.create(Settings(), create_engine("sqlite://")) for _ in range(2)]
            DYNAMODB_BACKENDS[dynamodb.url] = cast("StateBackend", InTurns(backends))
        return DYNAMODB_BACKENDS[dynamodb.url]

    def empty(self, backend: StateBackend) -> None:
        table = Table(Settings().dynamodb_table)
        table.client.delete_table(TableName=table.name)
        table.create()


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
    for name in ("redis_backend", "sql_backend", "memory_backend", "dynamodb_backend"):
        assert isinstance(load_backend(f"agentexec.state.{name}", settings, engine), StateBackend)

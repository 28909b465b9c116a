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
from agentexec.errors import BackendInvalidError, UsageError
from agentexec.state import memory_backend, redis_backend, sql_backend
from agentexec.state.backend import Depth, StateBackend, load_backend
from agentexec.state.redis_backend import RedisBackend
from agentexec.state.sql_backend import SqlBackend
from agentexec.state.sql_models import Counter, EventRow, Follow, Leader, Message, QueueEntry, Watch
from agentexec.task import Entry, new_agent_id
from agentexec.testing.backend_suite import BackendSuite


class TestMemoryBackend(BackendSuite):
    @pytest.fixture
    def backend(self) -> StateBackend:
        return memory_backend.MemoryBackend()

    def empty(self, backend: StateBackend) -> None:
        assert isinstance(backend, memory_backend.MemoryBackend)
        backend.flush()

    def test_those_who_share_an_engine_share_the_queue(self) -> None:
        settings, mine, other = Settings(), create_engine("sqlite://"), create_engine("sqlite://")
        assert memory_backend.create(settings, mine) is memory_backend.create(settings, mine)
        assert memory_backend.create(settings, mine) is not memory_backend.create(settings, other)

    def test_it_refuses_to_join_a_transaction(self, backend: StateBackend, queue: str) -> None:
        engine = create_engine("sqlite://")
        with engine.connect() as connection, pytest.raises(UsageError, match="without transaction="):
            backend.push(queue, [], transaction=connection)


class TestRedisBackend(BackendSuite):
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


class TestSignedRedisBackend(BackendSuite):
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


class TestSqlBackend(BackendSuite):
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


class TestLoadBackend:
    """Each of these modules lacks something, and the error names it."""

    def test_ours_load(self, redis_url: str) -> None:
        settings, engine = Settings(redis_url=redis_url), create_engine("sqlite://")
        for name in ("redis_backend", "sql_backend", "memory_backend"):
            assert isinstance(load_backend(f"agentexec.state.{name}", settings, engine), StateBackend)

    @pytest.mark.parametrize("module", ["agentexec.state.no_such_backend", "no_such_package.backend"])
    def test_a_module_that_is_not_there(self, module: str) -> None:
        with pytest.raises(BackendInvalidError, match=f"{module}, which cannot be imported"):
            load(module)

    def test_a_module_without_create(self) -> None:
        with pytest.raises(BackendInvalidError, match=r"json, which lacks create\(settings, engine\)"):
            load("json")

    def test_a_backend_without_some_methods(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "partial_backend.py").write_text(
            "from agentexec.state.memory_backend import MemoryBackend\n"
            "class Partial:\n"
            "    pass\n"
            "for name, value in vars(MemoryBackend).items():\n"
            "    if not name.startswith('_') and name not in ('renew', 'transactional', 'notify_done'):\n"
            "        setattr(Partial, name, value)\n"
            "def create(settings, engine):\n"
            "    return Partial()\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(BackendInvalidError) as caught:
            load("partial_backend")
        message = str(caught.value)
        assert "of partial_backend lacks transactional, renew, notify_done;" in message


def load(module: str) -> StateBackend:
    return load_backend(module, Settings(), create_engine("sqlite://"))

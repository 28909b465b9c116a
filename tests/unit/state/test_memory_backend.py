"""The memory backend passes the suite, and keeps its own promises."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import UsageError
from agentexec.state import memory_backend
from agentexec.state.backend import StateBackend
from agentexec.testing.backend_suite import BackendSuite


class TestMemoryBackend(BackendSuite):
    pick_up_seconds = 4.0

    @pytest.fixture
    def backend(self) -> StateBackend:
        return memory_backend.MemoryBackend()

    def empty(self, backend: StateBackend) -> None:
        assert isinstance(backend, memory_backend.MemoryBackend)
        backend.flush()

    def test_backends_of_one_engine_share_their_queue(self) -> None:
        settings, mine, other = Settings(), create_engine("sqlite://"), create_engine("sqlite://")
        assert memory_backend.create(settings, mine) is memory_backend.create(settings, mine)
        assert memory_backend.create(settings, mine) is not memory_backend.create(settings, other)

    def test_it_refuses_to_join_a_transaction(self, backend: StateBackend, queue: str) -> None:
        engine = create_engine("sqlite://")
        with engine.connect() as connection, pytest.raises(UsageError, match="without transaction="):
            backend.push(queue, [], transaction=connection)

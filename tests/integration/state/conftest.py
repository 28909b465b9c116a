"""Fixtures of the tests that compare every backend of agentexec with a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.state import memory_backend, redis_backend, sql_backend
from tests.conftest import BROKERS, SERVER_DATABASES

SERVERS = [*BROKERS, "sqlite", *SERVER_DATABASES]


@pytest.fixture(params=["memory", *(pytest.param(name, marks=pytest.mark.thorough) for name in SERVERS)])
def modeled_backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A backend with nothing in it, once per backend and server."""
    if request.param == "memory":
        yield memory_backend.MemoryBackend()
        return
    if request.param in BROKERS:
        settings = Settings(redis_url=request.getfixturevalue(f"{request.param}_url"))
        engine = create_engine("sqlite://")
        backend: Any = redis_backend.create(settings, engine)
    else:
        engine = open_engine(request.getfixturevalue(f"{request.param}_tables"))
        backend = sql_backend.create(Settings(), engine)
        backend.ping()
    yield backend
    backend.close()
    engine.dispose()

"""Redis by its Sentinels, which many threads ask at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import UnavailableError
from agentexec.state.redis_backend import RedisBackend, create
from agentexec.testing.backend_suite.operations import claim, ids, push
from tests.redis_clusters import WatchedPair

THREADS = 16


def make(url: str) -> RedisBackend:
    return create(Settings(redis_url=url), create_engine("sqlite://"))


@pytest.fixture(scope="module")
def pair() -> Iterator[WatchedPair]:
    with WatchedPair() as pair:
        yield pair


def test_tasks_pass_by_the_primary_while_a_sentinel_is_away(pair: WatchedPair) -> None:
    backend = make(pair.url)
    backend.ping()
    pushed = push(backend, "queue", 2)
    backend.wait(["queue", "other"], 5)
    assert ids(claim(backend, "queue", 5)) == pushed
    with pair.primary.client() as client:
        assert client.exists("{agentexec:queue}:entry")
    backend.close()


def test_threads_that_connect_at_once_lose_no_sentinel(pair: WatchedPair) -> None:
    backend = make(pair.url)
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(5):
            list(threads.map(lambda _: backend.depth("queue"), range(THREADS)))
            backend.close()
    for pool in (backend._retrying_client.connection_pool, backend._single_try_client.connection_pool):
        sentinels = pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
        ports = {sentinel.connection_pool.connection_kwargs["port"] for sentinel in sentinels}
        assert ports == {1, pair.sentinel.port}


def test_a_name_that_no_sentinel_knows(pair: WatchedPair) -> None:
    with pytest.raises(UnavailableError, match="No master found for 'other'") as caught:
        make(pair.url.replace("/main/", "/other/").replace("//", "//user:secret@")).ping()
    assert "secret" not in str(caught.value)

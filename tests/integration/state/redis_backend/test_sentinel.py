"""Redis by its Sentinels, which many threads ask at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import UnavailableError, UsageError
from agentexec.state.redis_backend import RedisBackend, create
from agentexec.testing.backend_suite.operations import claim, ids, push
from tests.redis_clusters import WatchedPair
from tests.servers import HOST

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
    with pytest.raises(UnavailableError, match="know no primary 'other' \\(but 'main'\\); correct") as caught:
        make(pair.url.replace("/main/", "/other/").replace("//", "//user:secret@")).ping()
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_a_sentinel_is_named(pair: WatchedPair) -> None:
    port = pair.primary.port
    with pytest.raises(UsageError, match=f"Redis at {HOST}:{port} .* is not a Sentinel: write redis://"):
        make(f"redis+sentinel://{HOST}:1,{HOST}:{port}/main/0").ping()
    with pair.primary.client() as client:
        client.config_set("requirepass", "secret")
        try:
            with pytest.raises(UsageError, match=r"sentinel_password.* or write redis:// if it is not"):
                make(f"redis+sentinel://{HOST}:{port}/main/0").ping()
        finally:
            client.config_set("requirepass", "")


def test_sentinels_that_are_away_are_named() -> None:
    with pytest.raises(
        UnavailableError, match=rf"^Redis at {HOST}:1 \(of .*\) cannot be used: Connection refused\.$"
    ):
        make(f"redis+sentinel://{HOST}:1,{HOST}:2/main/0").ping()

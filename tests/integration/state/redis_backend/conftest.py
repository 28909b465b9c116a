"""Fixtures of the tests of the Redis backend: a server that a test may stop, pause or configure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.conftest import ALL_SERVERS, BROKERS
from tests.servers import Valkey

# They need Debian's redis-server.
collect_ignore = [] if ALL_SERVERS else ["test_tls.py"]


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Valkey:
    """Return an empty server that a test may stop, pause or restart, once per kind of server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def server(broker: Valkey) -> Iterator[redis.Redis]:
    """Return a client of the server, whose settings are restored afterwards."""
    with broker.client() as client:
        yield client
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("requirepass", "")
        client.execute_command("REPLICAOF", "NO", "ONE")

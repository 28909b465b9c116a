"""Connections to Redis, and the translation of its errors."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry

from agentexec.errors import AgentexecError, UsageError
from agentexec.state.redis_backend.refusals import OUTAGES, code_of, translate

log = logging.getLogger("agentexec.redis")

TIMEOUT = 5.0
"""Time limit of a command, in seconds."""

MAX_BLOCK_SECONDS = 10.0
"""Longest blocking read, in seconds. A longer wait is several reads."""

HEALTH_CHECK_INTERVAL = 15
"""Idle seconds after which a connection is checked before use, which finds half-open ones."""

MAX_CONNECTIONS = 10_000
"""Connections of a pool: enough never to limit the threads that call at the same time."""

SCHEMES = ("redis", "rediss", "unix")
"""Schemes of the URLs that redis-py reads."""


class Connections:
    """Two clients of one server.

    `retrying_client` sends a command once more when its connection breaks, for commands that may run twice.
    `single_try_client` never does. It also carries the blocking reads, so its read timeout is above `MAX_BLOCK_SECONDS`.
    """

    def __init__(self, url: str) -> None:
        self.retrying_client = redis.Redis.from_pool(_pool(url, timeout=TIMEOUT, retries=1))
        self.single_try_client = redis.Redis.from_pool(
            _pool(url, timeout=MAX_BLOCK_SECONDS + TIMEOUT, retries=0)
        )
        self.safe_url = without_secrets(url)
        self._logged_bugs: set[tuple[type[Exception], str, int | None]] = set()

    def close(self) -> None:
        """Disconnect, also connections on which another thread waits. A later call connects again."""
        for client in (self.retrying_client, self.single_try_client):
            client.connection_pool.disconnect()

    @contextmanager
    def translating_errors(self) -> Generator[None]:
        """Raise UnavailableError for every error of Redis or its client: callers wait, or leave the work to the reconciler."""
        try:
            yield
        except AgentexecError:
            raise
        except Exception as error:
            code = code_of(error)
            if code in OUTAGES:
                # After a failover the address may belong to another server.
                self.close()
            if code == "" and not isinstance(error, redis.RedisError):
                self._log_bug(error)
            raise translate(error, self.safe_url) from error

    def _log_bug(self, error: Exception) -> None:
        """Log the traceback of an error that is not the server's, once for each kind of it."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        bug = (type(error), where.filename, where.lineno)
        if bug not in self._logged_bugs:
            self._logged_bugs.add(bug)
            log.error("The client of Redis failed.", exc_info=error)


def clamp_block_timeout(timeout: float) -> float:
    """Return a block time below the read timeout, and never 0, which would block forever."""
    return max(0.001, min(timeout, MAX_BLOCK_SECONDS))


def without_secrets(url: str) -> str:
    """Return a Redis URL for messages: no user, no password, no query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _pool(url: str, *, timeout: float, retries: int) -> ConnectionPool:
    """Return a pool that has no connections yet. Raises UsageError for a URL that cannot be parsed."""
    parsed = _parse(url)
    # Options of the URL win, except those that would leave a call unbounded or cut a blocking read short.
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_connect_timeout": TIMEOUT,
        "socket_keepalive": True,
    } | parsed
    options |= {
        "socket_timeout": timeout,
        "health_check_interval": HEALTH_CHECK_INTERVAL,
        # Not after a timeout: the retry would only wait for a hanging server again.
        "retry": Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,)),
        "max_connections": MAX_CONNECTIONS,
        "decode_responses": False,
    }
    if url.startswith("unix:"):
        del options["socket_keepalive"]
    pool = ConnectionPool(**options)
    try:
        pool.connection_class(**pool.connection_kwargs)
    except TypeError:
        raise _bad_url("its query has an argument that redis-py does not know") from None
    return pool


def _parse(url: str) -> dict[str, Any]:
    """Return the arguments of a connection."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        # The scheme of a malformed URL may be a password.
        named = (
            f"it starts with {scheme}://"
            if separator and scheme.isalpha() and len(scheme) < 8
            else "it has no scheme"
        )
        raise _bad_url(f"{named}, and agentexec speaks {', '.join(f'{known}://' for known in SCHEMES)}")
    try:
        parsed = parse_url(url)
        database = urlsplit(url).path.strip("/")
    except ValueError:
        # The error's message may quote part of a password with a special character.
        raise _bad_url("it is malformed (write special characters of a password like %2F)") from None
    if not url.startswith("unix:"):
        if "host" not in parsed:
            raise _bad_url("it names no host")
        if database and not database.isdecimal():
            raise _bad_url("its path is not a database number")
    return parsed


def _bad_url(reason: str) -> UsageError:
    return UsageError(
        f"AGENTEXEC_REDIS_URL cannot be used: {reason}; write it like redis://user:password@host:6379/0."
    )

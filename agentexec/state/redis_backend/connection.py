"""The connections to Redis, and its outages in our words."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry

from agentexec.errors import UnavailableError, UsageError
from agentexec.redaction import redact

TIMEOUT = 5.0
"""Seconds that a command may take."""

MAX_BLOCK_SECONDS = 10.0
"""Seconds that one blocking read lasts at most; a longer wait is several of them."""

HEALTH_CHECK_INTERVAL = 15
"""Seconds of rest after which a connection is tried before use, so that a half-open one is found then."""

MOST_CONNECTIONS = 10_000
"""No limit of its own: there are as many connections as threads that call at once."""

OUTAGES = (
    "BUSY ",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
)
"""Error replies of a server that will be well again: nothing is wrong with what was asked."""


class Connections:
    """Two clients of one server.

    `retrying_client` sends a command again, once, when its connection breaks: right for what may happen twice.
    `single_try_client` never does; it also carries the blocking reads, so its read time-out is above `MAX_BLOCK_SECONDS`.
    """

    def __init__(self, url: str) -> None:
        self.retrying_client = redis.Redis.from_pool(_pool(url, timeout=TIMEOUT, retries=1))
        self.single_try_client = redis.Redis.from_pool(
            _pool(url, timeout=MAX_BLOCK_SECONDS + TIMEOUT, retries=0)
        )
        self.safe_url = without_secrets(url)

    def close(self) -> None:
        """Disconnect, also what another thread waits on; a later call connects again."""
        for client in (self.retrying_client, self.single_try_client):
            client.connection_pool.disconnect()

    @contextmanager
    def translating_errors(self) -> Generator[None]:
        """Turn the errors of a server that is away, full or failing over into UnavailableError."""
        try:
            yield
        except redis.exceptions.AuthenticationError as error:
            raise UnavailableError(
                f"Redis at {self.safe_url} refuses the user or password: {_reason(error)}."
            ) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise UnavailableError(f"Redis at {self.safe_url} cannot be used: {_reason(error)}.") from error
        except redis.exceptions.OutOfMemoryError as error:
            raise UnavailableError(
                f"Redis at {self.safe_url} is full: raise its maxmemory, or let the workers empty the queue."
            ) from error
        except redis.exceptions.NoPermissionError as error:
            raise UsageError(
                f"The user of Redis at {self.safe_url} lacks a permission: {_reason(error)}."
            ) from error
        except redis.ResponseError as error:
            if isinstance(error, redis.ReadOnlyError) or str(error).startswith(OUTAGES):
                # After a failover the address may belong to another server by now.
                self.close()
                raise UnavailableError(
                    f"Redis at {self.safe_url} cannot be used: {_reason(error)}."
                ) from error
            if "WRONGTYPE" in str(error):
                # In the words of an outage, which loops wait out: they log it once, and go on when it is over.
                raise UnavailableError(
                    f"Redis at {self.safe_url} holds something else under a key of the queue; remove it, or set another "
                    "AGENTEXEC_KEY_PREFIX."
                ) from error
            if str(error).startswith(("MOVED", "CROSSSLOT")):
                raise UsageError(
                    f"Redis at {self.safe_url} is a cluster of several shards; use one shard or a plain server."
                ) from error
            raise


def clamp_block_timeout(timeout: float) -> float:
    """A block time that the read time-out exceeds; never 0, which means for ever."""
    return max(0.001, min(timeout, MAX_BLOCK_SECONDS))


def without_secrets(url: str) -> str:
    """A Redis URL for messages: no user, no password, no query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _pool(url: str, *, timeout: float, retries: int) -> ConnectionPool:
    """Connects to nothing yet. Raises UsageError for a URL that cannot be read."""
    parsed = _parse(url)
    # What the URL asks for wins, except where a call would no longer be bounded, or a blocking read be cut short.
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_connect_timeout": TIMEOUT,
        "socket_keepalive": True,
    } | parsed
    options |= {
        "socket_timeout": timeout,
        "health_check_interval": HEALTH_CHECK_INTERVAL,
        # Not after a time-out: a server that hangs would only be waited for twice.
        "retry": Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,)),
        "max_connections": MOST_CONNECTIONS,
        "decode_responses": False,
    }
    if url.startswith("unix:"):
        del options["socket_keepalive"]
    pool = ConnectionPool(**options)
    try:
        pool.connection_class(**pool.connection_kwargs)
    except TypeError:
        raise _bad_url("its query holds an argument that redis-py does not know") from None
    return pool


def _parse(url: str) -> dict[str, Any]:
    """Arguments of a connection."""
    try:
        parsed = parse_url(url)
        database = urlsplit(url).path.strip("/")
    except ValueError:
        # Its message may quote a part of the password, where that holds a character that ends it early.
        raise _bad_url("it is malformed (special characters of a password are written like %2F)") from None
    if not url.startswith("unix:"):
        if "host" not in parsed:
            raise _bad_url("it names no host")
        if database and not database.isdecimal():
            raise _bad_url("its path is no database number")
    return parsed


def _bad_url(reason: str) -> UsageError:
    return UsageError(
        f"AGENTEXEC_REDIS_URL cannot be used: {reason}; write it like redis://user:password@host:6379/0."
    )


def _reason(error: Exception) -> str:
    """The reason in one line, without the final stop and without redis-py's "Error 111 connecting to ..."."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
    return redact(re.sub(r"^Error -?\d+ connecting to \S+?\. ", "", text))

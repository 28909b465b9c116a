"""Connections to Redis, and the translation of its errors."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from agentexec.errors import AgentexecError
from agentexec.state.redis_backend.address import Address, Node, bad_argument, bad_url, read_address
from agentexec.state.redis_backend.cluster import ClusterClient, place_of
from agentexec.state.redis_backend.refusals import (
    LASTING,
    NODE,
    OUTAGES,
    SENTINEL,
    code_of,
    noted,
    translate,
)

log = logging.getLogger("agentexec.redis")

TIMEOUT = 5.0
"""Time limit of a command, in seconds."""

MAX_BLOCK_SECONDS = 10.0
"""Longest blocking read, in seconds. A longer wait is several reads."""

HEALTH_CHECK_INTERVAL = 15
"""Idle seconds after which a connection is checked before use, which finds half-open ones."""

MAX_CONNECTIONS = 10_000
"""Connections of a pool: enough never to limit the threads that call at the same time."""


class Clients(NamedTuple):
    """Two clients of one server or cluster."""

    retrying: redis.Redis
    single_try: redis.Redis


class Sentinels(Sentinel):
    """Sentinels for several threads: redis-py moves entries of its list while others read it, and may lose one."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary. Raises the error of a Sentinel if none tells, a lasting one if there is one."""
        errors: list[Exception] = []
        known = list(self.sentinels)
        for sentinel in known:
            try:
                primaries = sentinel.sentinel_masters()
            except (redis.RedisError, OSError) as error:
                errors.append(noted(error, SENTINEL, *place_of(sentinel)))
                continue
            state = primaries.get(service_name)
            if state is None:
                names = ", ".join(map(repr, primaries)) or "none"
                errors.append(
                    MasterNotFoundError(
                        f"the Sentinels know no primary {service_name!r} (but {names}); correct the name in AGENTEXEC_REDIS_URL"
                    )
                )
            elif self.check_master_state(state, service_name):
                self.sentinels = [sentinel, *(other for other in known if other is not sentinel)]
                return state["ip"], state["port"]
            else:
                errors.append(MasterNotFoundError(f"the Sentinels hold {service_name!r} for down"))
        raise min(errors, key=_weight)


def _weight(error: Exception) -> int:
    """Return a number that is lower the more an error of a Sentinel says."""
    if isinstance(error, MasterNotFoundError):
        return 0
    return 1 if code_of(error) in LASTING else 2


class Connections:
    """Clients of a server, of the primary that Sentinels name, or of a cluster: the server says whether it is one.

    `retrying_client` sends a command once more when its connection breaks, for commands that may run twice.
    `single_try_client` never does. It also carries the blocking reads, so its read timeout is above `MAX_BLOCK_SECONDS`.
    """

    def __init__(self, url: str) -> None:
        self._address = read_address(url)
        self._plain = Clients(
            _client(self._address, timeout=TIMEOUT, retries=1),
            _client(self._address, timeout=MAX_BLOCK_SECONDS + TIMEOUT, retries=0),
        )
        self._found: Clients | None = None
        self.safe_url = without_secrets(url)
        self._logged_bugs: set[tuple[type[Exception], str, int | None]] = set()

    @property
    def retrying_client(self) -> redis.Redis:
        """Client for commands that may run twice. The first use asks the server whether it is a cluster."""
        return self._clients().retrying

    @property
    def single_try_client(self) -> redis.Redis:
        """Client for commands that must not run twice, and for blocking reads."""
        return self._clients().single_try

    def close(self) -> None:
        """Disconnect, also connections on which another thread waits. A later call connects again."""
        for client in (*self._plain, *(self._found or ())):
            if isinstance(client, ClusterClient):
                client.close()
            else:
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
            if code == "MOVED":
                # The server has become a cluster, or it did not show its map when it was asked.
                self._found = None
            if code in OUTAGES and not self._is_cluster:
                # After a failover the address may belong to another server.
                self.close()
            if code == "" and not isinstance(error, redis.RedisError):
                self._log_bug(error)
            raise translate(error, self.safe_url, answered=self._found is not None) from error

    @property
    def _is_cluster(self) -> bool:
        return self._found is not None and isinstance(self._found.retrying, ClusterClient)

    def _clients(self) -> Clients:
        # Two threads that look at once find the same; a lock might be held during a fork.
        if self._found is None:
            self._found = self._look()
        return self._found

    def _look(self) -> Clients:
        """Ask the nodes of the URL, until one answers, whether they are a cluster."""
        address = self._address
        if address.service or not address.nodes:
            return self._plain
        away: Exception | None = None
        for number, node in enumerate(address.nodes):
            client = self._plain.retrying if number == 0 else _client(address, node, timeout=TIMEOUT)
            try:
                shows_map = _shows_map(client)
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                away = noted(error, NODE, *node) if len(address.nodes) > 1 else error
                continue
            if shows_map:
                return _cluster(address)
            if len(address.nodes) > 1:
                raise bad_url(
                    f"{node.host}:{node.port} is not part of a cluster that its user may see (+cluster|slots), and several "
                    "hosts are only for a cluster or, with redis+sentinel://, for Sentinels"
                )
            return self._plain
        raise away or redis.ConnectionError("no host answers")

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
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _shows_map(client: redis.Redis) -> bool:
    """Return True for a node of a cluster that says who has which slots. A cluster of one shard serves any client."""
    try:
        slots = client.execute_command("CLUSTER", "SLOTS")
    except redis.ResponseError as error:
        if code_of(error) in OUTAGES:
            raise
        return False
    except UnicodeError:  # of the host's name
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise redis.exceptions.InvalidResponse("an answer has another form") from error
    return isinstance(slots, list) and bool(slots)


def _cluster(address: Address) -> Clients:
    retrying = ClusterClient(lambda node: _client(address, node, timeout=TIMEOUT, retries=1), address.nodes)
    single_try = ClusterClient(
        lambda node: _client(address, node, timeout=MAX_BLOCK_SECONDS + TIMEOUT),
        address.nodes,
        retrying.topology,
    )
    return Clients(retrying, single_try)


def _client(address: Address, node: Node | None = None, *, timeout: float, retries: int = 0) -> redis.Redis:
    """Return a client that has no connections yet, by default of the first node. Raises UsageError for unknown arguments."""
    # Options of the URL win, except those that would leave a call unbounded or cut a blocking read short.
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_connect_timeout": TIMEOUT,
        "socket_keepalive": True,
    } | address.options
    options |= {
        "socket_timeout": timeout,
        "health_check_interval": HEALTH_CHECK_INTERVAL,
        # Not after a timeout: the retry would only wait for a hanging server again.
        "retry": Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,)),
        "max_connections": MAX_CONNECTIONS,
        "decode_responses": False,
    }
    if not address.nodes:
        del options["socket_keepalive"]
    elif not address.service:
        options |= (node or address.nodes[0])._asdict()
    pool = ConnectionPool(**options)
    try:
        pool.connection_class(**pool.connection_kwargs)
    except Exception:
        # The error may quote a value.
        refused = [name for name in address.options if _refuses(pool, address, name)]
        raise bad_argument(address, (*refused, "")[0], "is not one that redis-py accepts here") from None
    return redis.Redis.from_pool(_primary_pool(address, options) if address.service else pool)


def _refuses(pool: ConnectionPool, address: Address, name: str) -> bool:
    """Return True if a connection refuses one argument by itself."""
    try:
        pool.connection_class(**({name: address.options[name]} if name != "connection_class" else {}))
    except Exception:
        return True
    return False


def _primary_pool(address: Address, options: dict[str, Any]) -> ConnectionPool:
    """Return a pool of connections to the primary, for which each new connection asks the Sentinels."""
    own = {name: value for name, value in options.items() if name not in ("host", "port", "connection_class")}
    limits = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": own["socket_connect_timeout"],
        # By default redis-py asks a silent Sentinel again and again before it asks the next.
        "retry": Retry(NoBackoff(), 0),
    }
    tls = {name: value for name, value in own.items() if name.startswith("ssl_")}
    sentinel = Sentinels(
        address.nodes,
        sentinel_kwargs=limits | ({"ssl": True} if address.secure else {}) | tls | address.sentinel_options,
    )
    return SentinelConnectionPool(address.service, sentinel, ssl=address.secure, **own)

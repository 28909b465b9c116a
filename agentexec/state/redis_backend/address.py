"""The URL of Redis: one server, nodes of a cluster, or the Sentinels that know the primary."""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from redis.connection import SSLConnection, parse_url

from agentexec.errors import UsageError

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
"""Schemes of the URLs that can be read."""

PORT = 6379
SENTINEL_PORT = 26379

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path")
"""Arguments that name a file or a folder."""


class Node(NamedTuple):
    """Host and port of a server."""

    host: str
    port: int


class Address(NamedTuple):
    """Parts of a URL."""

    nodes: list[Node]
    """The server, nodes of a cluster, or Sentinels; empty for a socket."""

    service: str
    """Name under which the Sentinels know the primary; empty without Sentinels."""

    options: dict[str, Any]
    """Arguments of a connection to the first node, as redis-py reads them."""

    sentinel_options: dict[str, Any]
    """Arguments of a connection to a Sentinel: user and password."""

    @property
    def secure(self) -> bool:
        """True for TLS."""
        return self.options.get("connection_class") is SSLConnection


def read_address(url: str) -> Address:
    """Return what a URL says. Raises UsageError for one that cannot be read, and never quotes it."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        # The scheme of a malformed URL may be a password.
        named = (
            f"it starts with {scheme}://"
            if separator and scheme.isalpha() and len(scheme) < 8
            else "it has no scheme"
        )
        raise bad_url(f"{named}, and agentexec speaks {', '.join(f'{known}://' for known in SCHEMES)}")
    try:
        address = _read_socket(url) if scheme == "unix" else _read_nodes(url)
    except ValueError:
        # The error's message may quote part of a password with a special character.
        raise bad_url("it is malformed (write special characters of a password like %2F)") from None
    for name in FILES:
        if name in address.options and not os.access(address.options[name], os.R_OK):
            raise bad_url(f"its {name} names no file that can be read")
    return address


def _read_socket(url: str) -> Address:
    return Address([], "", parse_url(url), {})


def _read_nodes(url: str) -> Address:
    """Return what the URL of one or several nodes says. Raises ValueError for one that is malformed."""
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    parts = urlsplit(f"{base}://{rest}")
    user, at, places = parts.netloc.rpartition("@")
    first, *others = places.split(",")
    service, path = "", parts.path
    if kind:
        service, _, path = parts.path.strip("/").partition("/")
    if path.strip("/") and not path.strip("/").isdecimal():
        raise bad_url("its path is not a database number")
    options = parse_url(parts._replace(netloc=user + at + first, path=path).geturl())
    if "host" not in options or not all(others):
        raise bad_url("it names no host")
    if kind and not service:
        raise bad_url(
            "it names no primary after the Sentinels, as redis+sentinel://host:26379/mymaster/0 does"
        )
    port = SENTINEL_PORT if kind else PORT
    nodes = [
        Node(options["host"], options.get("port", port)),
        *(_node(place, port) for place in others),
    ]
    names = {"sentinel_username": "username", "sentinel_password": "password"}
    sentinel_options = {names[name]: options.pop(name) for name in names if name in options}
    return Address(nodes, service, options, sentinel_options)


def _node(place: str, port: int) -> Node:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError
    return Node(parts.hostname, parts.port or port)


def bad_url(reason: str) -> UsageError:
    """Return the error about a URL of Redis."""
    return UsageError(
        f"AGENTEXEC_REDIS_URL cannot be used: {reason}; write it like redis://user:password@host:6379/0."
    )

"""The URL of Redis: one server, nodes of a cluster, or the Sentinels that know the primary."""

from __future__ import annotations

import os
import re
import ssl
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from redis.connection import URL_QUERY_ARGUMENT_PARSERS, SSLConnection, parse_url

from agentexec.errors import UsageError

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
"""Schemes of the URLs that can be read."""

PORT = 6379
SENTINEL_PORT = 26379

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path")
"""Arguments that name a file or a folder."""

ARGUMENTS = (frozenset(URL_QUERY_ARGUMENT_PARSERS) - {"retry_on_error"}) | {
    "client_name",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "lib_name",
    "lib_version",
    "password",
    "sentinel_password",
    "sentinel_username",
    "username",
}
"""Arguments that a text can give, besides those of TLS; redis-py takes others of its classes' objects."""


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
        names = [*parse_qs(urlsplit(url).query)]
    except ValueError as error:
        # Otherwise the error's message may quote part of a password with a special character.
        if found := re.match(r"Invalid value for '(\w+)' in connection URL", str(error)):
            raise bad_url(f"its argument {found[1]} has an invalid value") from None
        raise bad_url("it is malformed (write special characters of a password like %2F)") from None
    _check_arguments(names, address)
    return address


def _check_arguments(names: list[str], address: Address) -> None:
    """Check what redis-py would refuse when it connects. Raises UsageError."""
    for name in names:
        if name.startswith("ssl_") and not address.secure:
            raise bad_argument(address, name, "needs rediss://")
        if name not in ARGUMENTS and not name.startswith("ssl_"):
            raise bad_argument(address, name, "is unknown")
    for name in FILES:
        if name in address.options and not os.access(address.options[name], os.R_OK):
            raise bad_url(f"its {name} names no file that can be read")
    if address.options.get("ssl_min_version", ssl.TLSVersion.TLSv1_2) not in set(ssl.TLSVersion):
        raise bad_url("its ssl_min_version is not 771 for TLS 1.2, or 772 for TLS 1.3")
    if address.options.get("socket_connect_timeout", 1.0) <= 0:
        raise bad_url("its socket_connect_timeout is not above 0")


def _read_socket(url: str) -> Address:
    options = parse_url(url)
    if urlsplit(url).path.strip("/") == "":
        raise bad_url("it names no socket, as unix:///run/redis.sock does")
    return Address([], "", options, {})


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


def bad_argument(address: Address, name: str, problem: str) -> UsageError:
    """Return the error about an argument of the URL."""
    # After a question mark in a password, its rest reads like an argument.
    shown = re.fullmatch(r"[a-z_]{2,40}", name) and not any(
        "@" in str(value) for value in address.options.values()
    )
    return bad_url(f"its argument {name} {problem}" if shown else f"one of its arguments {problem}")


def bad_url(reason: str) -> UsageError:
    """Return the error about a URL of Redis."""
    return UsageError(
        f"AGENTEXEC_REDIS_URL cannot be used: {reason}; write it like redis://user:password@host:6379/0."
    )

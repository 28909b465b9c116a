"""One HTTP request of a webhook: to public addresses only, without redirects, with bounds on time and size.

URLs may come from users of the application. A name is resolved here, every address is checked, and the connection goes to
the checked address, so no answer of a name server can lead elsewhere.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 20.0
"""Limit of a whole request: a receiver that answers a byte at a time must not hold a thread."""

MAX_ANSWER_BYTES = 1024


class Answer(NamedTuple):
    """Answer of a receiver."""

    status: int
    retry_after: str | None


class ForbiddenAddressError(Exception):
    """The URL leads to an address that is not public."""


class DeliveryError(Exception):
    """The request had no answer. The text is made for people, and has no part of the URL but its host."""


def post(url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool) -> Answer:
    """Send a body. Redirects are not followed, and proxies of the environment are not used.

    Raises:
        ForbiddenAddressError: The host has an address that is not public, and `allow_private` is False.
        DeliveryError: No answer has come.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    addresses = _resolve(host, port, allow_private)
    kind = _Secure if parts.scheme == "https" else _Plain
    connection = kind(host, port, timeout=CONNECT_SECONDS)
    connection.addresses = addresses
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    limit = threading.Timer(TOTAL_SECONDS, _cut, [connection])
    limit.daemon = True
    limit.start()
    try:
        connection.request("POST", target, body, dict(headers))
        response = connection.getresponse()
        response.read(MAX_ANSWER_BYTES)
        return Answer(response.status, response.getheader("retry-after"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DeliveryError(f"{host}: {_reason(error)}") from None
    finally:
        limit.cancel()
        connection.close()


def _resolve(host: str, port: int, allow_private: bool) -> list[str]:
    """Return the addresses of a host, if all of them are allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"{host}: {_reason(error)}") from None
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for address in addresses:
        if not allow_private and not _is_public(address):
            raise ForbiddenAddressError(f"{host} has the address {address}, which is not public")
    return addresses


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # Addresses that stand for one of version 4 lead where that leads.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _nat64(ip)
        if inner is not None:
            return _is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return None


class _Plain(http.client.HTTPConnection):
    """Connection to the first of the addresses, which were checked, that answers."""

    addresses: Sequence[str] = ()

    def connect(self) -> None:
        problem: OSError = OSError("no address")
        for address in self.addresses:
            try:
                self.sock = socket.create_connection((address, self.port), self.timeout)
            except OSError as error:
                problem = error
            else:
                return
        raise problem


class _Secure(_Plain):
    """Connection with TLS to an address that was checked; the certificate must be that of the host."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _cut(connection: _Plain) -> None:
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:200]

"""Origin of an HTTP request: this machine, another one, or a page of another site."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers by which a proxy tells that the request comes from elsewhere."""


def is_loopback(host: str) -> bool:
    """Return True for the name or address of the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Return True for a request that a browser sends for a page of another origin."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site != "same-origin"
    origin = headers.get("origin")
    return origin is not None and _netloc(origin).lower() != headers.get("host", "").lower()


def is_local(client: tuple[str, int] | None, headers: Mapping[str, str]) -> bool:
    """Return True for a request of this machine to a loopback address by its name.

    The name is checked because a page of another site can make its own name resolve to 127.0.0.1, and read the answer.
    """
    if client is None or not is_loopback(client[0]) or any(name in headers for name in PROXY_HEADERS):
        return False
    # A proxy that keeps quiet about itself still passes on which page asks.
    pages = [headers["host"]] if "host" in headers else []
    pages += [_netloc(headers[name]) for name in ("origin", "referer") if headers.get(name)]
    return bool(pages) and all(is_loopback(_hostname(page)) for page in pages)


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""

"""Logins of the dashboard with a token: the cookie says that its browser has given the token, and until when it counts."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

SECONDS = 7 * 24 * 3600
"""Seconds after which a login ends."""

MAX_COOKIE = 200
"""Characters of the longest cookie that is read."""


class Logins:
    """Checks tokens and cookies. It remembers nothing, so that several processes can answer for one dashboard.

    Args:
        token: The token that logs in.
        clock: Returns the time in seconds.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        self._token = _digest(token.encode(), b"token")
        self._key = _digest(token.encode(), b"cookie")
        self._clock = clock

    @property
    def cookie(self) -> str:
        """Name of the cookie. Dashboards on other ports of the host have other tokens, and so other names."""
        return f"agentexec_{_digest(self._key, b'name').hex()[:8]}"

    def accepts(self, token: str) -> bool:
        """Return True for the token. Takes the same time for every other text."""
        return hmac.compare_digest(_digest(token.encode("utf-8", "replace"), b"token"), self._token)

    def issue(self) -> str:
        """Return the value of a cookie, which counts from now on."""
        expires = str(int(self._clock()) + SECONDS)
        return f"{expires}.{self._sign(expires)}"

    def is_valid(self, cookie: str | None) -> bool:
        """Return True for a cookie that was issued and has not expired."""
        if cookie is None or len(cookie) > MAX_COOKIE or not cookie.isascii():
            return False
        expires, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature, self._sign(expires)):
            return False
        return int(expires) > self._clock()

    def _sign(self, expires: str) -> str:
        return _digest(self._key, expires.encode()).hex()


def _digest(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, purpose, hashlib.sha256).digest()

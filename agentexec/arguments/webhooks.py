"""Checks of the URLs that webhooks are sent to, and of the secrets that sign them."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit

from agentexec.arguments.checks import check_text
from agentexec.errors import UsageError

MAX_URL = 2000
"""Maximum characters of a URL."""

PREFIX = "whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""Length of a secret, as the scheme asks for."""


def check_url(name: str, value: Any) -> str:
    """Return an http or https URL with a host, and without a password. Its text is not quoted: it may hold a token."""
    text = check_text(name, value, MAX_URL)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or port == 0 or not _is_printable(text):
        raise UsageError(f"{name} must be an http or https URL, like https://example.com/hooks/tasks.")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{name} must not contain a user name or a password; the receiver verifies the signature."
        )
    return text


def _is_printable(text: str) -> bool:
    return all("!" <= char <= "~" for char in text)


def shown_url(url: str) -> str:
    """Return the part of a URL that may be shown: a path may hold a token."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}"
    except ValueError:
        return "an invalid URL"


def parse_secret(text: str) -> bytes:
    """Return the bytes of a secret like whsec_MfKQ…; raises ValueError for another text, without quoting it."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except ValueError:
        key = b""
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"each secret must be {PREFIX} and the base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes, with commas "
            f'between secrets; make one with: echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return key

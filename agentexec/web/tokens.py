"""Read tokens: short-lived, signed permissions to read one task, or those with some metadata, for browsers.

A token is `axr1.PAYLOAD.SIGNATURE`: base64url of JSON, and of its HMAC-SHA256. Nothing is stored, so a token cannot be
revoked; it expires soon, and a change of the key ends all.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agentexec.arguments.checks import check_seconds
from agentexec.config import CONF
from agentexec.errors import SettingsError, TokenInvalidError, UsageError
from agentexec.task import Task, agent_id_of
from agentexec.web.caller import Caller

PREFIX = "axr1."
"""Beginning of each token; the number is the version of its format."""

MAX_TOKEN = 4096
"""Characters of the longest token, so that it fits into a URL."""

DEFAULT_SECONDS = 600.0
MAX_SECONDS = 86_400.0

_SIGNED = b"agentexec read token 1\n"
"""Text that is signed before the payload, so that a signature made for something else with the same key is not a token."""

_INVALID = "The read token is not valid; get a new one from the application."


def read_token(
    *,
    task: Task | UUID | str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    expires_in: float | timedelta = DEFAULT_SECONDS,
) -> str:
    """Return a token with which a browser may read one task, or the tasks with some metadata, until it expires.

    The HTTP API accepts it instead of its `caller=`: in the header `Authorization: Bearer …`, and for an EventSource,
    which cannot send headers, as the query parameter `read_token` of streams. A token never permits to change anything. It
    shows what the streams of its tasks tell, their results among it, and not their contexts.

    Args:
        task: Handle or agent_id of the one task that may be read: its details and its events.
        metadata_filter: Values that the metadata of the readable tasks has; instead of `task`.
        expires_in: Seconds, or a timedelta, until it expires; up to a day.

    Returns:
        The token.

    Raises:
        UsageError: An argument is invalid, or both or none of `task` and `metadata_filter` are given.
        SettingsError: `AGENTEXEC_READ_TOKEN_KEY` is not set.
    """
    if (task is None) is (metadata_filter is None):
        raise UsageError("read_token() takes either task= or metadata_filter=.")
    seconds = check_seconds("expires_in=", expires_in, minimum=1.0)
    if seconds > MAX_SECONDS:
        raise UsageError(f"expires_in= is at most {MAX_SECONDS:.0f} seconds: a read token cannot be revoked.")
    if not (keys := CONF.read_token_keys):
        raise SettingsError(
            "Read tokens need a key; set AGENTEXEC_READ_TOKEN_KEY to 16 or more random characters."
        )
    claims: dict[str, Any] = {"e": math.ceil(time.time() + seconds)}
    if task is not None:
        claims["t"] = agent_id_of(task).hex
    else:
        claims["m"] = _plain(Caller(metadata_filter=metadata_filter).metadata_filter or {})
    payload = _encode(json.dumps(claims, separators=(",", ":")).encode())
    token = f"{PREFIX}{payload}.{_encode(_sign(keys[0], payload))}"
    if len(token) > MAX_TOKEN:
        raise UsageError(
            f"metadata_filter= is too large for a read token, which has at most {MAX_TOKEN} characters."
        )
    return token


def caller_of(token: str) -> Caller:
    """Return the caller that a read token stands for.

    Raises:
        TokenInvalidError: It is forged, damaged, too long or expired, or this process has no key for it.
    """
    if not CONF.read_token_keys:
        raise TokenInvalidError(
            "This server accepts no read tokens; its AGENTEXEC_READ_TOKEN_KEY is not set."
        )
    if len(token) > MAX_TOKEN or not token.isascii():
        raise TokenInvalidError(_INVALID)
    payload, _, signature = token.removeprefix(PREFIX).partition(".")
    # All keys, whichever fits: the time taken tells nothing about them.
    fits = [hmac.compare_digest(_encode(_sign(key, payload)), signature) for key in CONF.read_token_keys]
    if not token.startswith(PREFIX) or not any(fits):
        raise TokenInvalidError(_INVALID)
    return _caller(payload)


def _caller(payload: str) -> Caller:
    """Return the caller of a payload, which one of our keys has signed."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires_at = datetime.fromtimestamp(claims["e"], UTC)
        agent_id = UUID(claims["t"]) if "t" in claims else None
        caller = Caller(metadata_filter=claims.get("m"), agent_id=agent_id, expires_at=expires_at)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        OSError,
        binascii.Error,
        UsageError,
    ):
        raise TokenInvalidError(_INVALID) from None
    if caller.agent_id is None and caller.metadata_filter is None:
        raise TokenInvalidError(_INVALID)
    if expires_at.timestamp() <= time.time():
        raise TokenInvalidError("The read token has expired; get a new one from the application.")
    return caller


def _plain(labels: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, UUID) else value for name, value in labels.items()}


def _sign(key: str, payload: str) -> bytes:
    return hmac.new(key.encode(), _SIGNED + payload.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

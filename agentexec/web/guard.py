"""Guard before the dashboard: refuses requests of other sites and, without a login, of other machines; sets the headers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from agentexec.arguments.origins import is_foreign, is_local

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ACT_HEADER = "x-agentexec"
"""Header of every request that changes something. Forms cannot send it, and scripts of other sites must ask first."""

SAFE_METHODS = frozenset({"GET", "HEAD"})

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer that does not set them itself."""

NOT_LOCAL = (
    "Without a login, the dashboard answers only browsers on its own machine, at a loopback address such as "
    "http://127.0.0.1. Set AGENTEXEC_DASHBOARD_TOKEN, or pass ax.web.dashboard(caller=...)."
)
FOREIGN = (
    "This request comes from another site, or from a proxy that changes the header Host; it was refused."
)
NO_HEADER = "Send the header `X-Agentexec: 1` with requests that change something."


class Guard:
    """ASGI middleware of the dashboard.

    Args:
        app: The dashboard.
        only_local: Whether requests of other machines are refused, since nobody logs in.
    """

    def __init__(self, app: Application, *, only_local: bool) -> None:
        self._app = app
        self._only_local = only_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _completed(message.get("headers", ()))
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _refuse(refusal, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        """Return why a request is refused, or None."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._only_local and not is_local(scope.get("client"), headers):
            return NOT_LOCAL
        if scope["method"] in SAFE_METHODS:
            return None
        if is_foreign(headers):
            return FOREIGN
        return None if ACT_HEADER in headers else NO_HEADER


def _completed(headers: Any) -> list[tuple[bytes, bytes]]:
    given = {name.lower() for name, _ in headers}
    missing = {name.encode(): value.encode() for name, value in HEADERS.items()}
    return [*headers, *((name, value) for name, value in missing.items() if name not in given)]


async def _refuse(sentence: str, send: Send) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})

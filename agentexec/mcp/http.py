"""The MCP server over HTTP: the address that it listens on, its guard, and uvicorn."""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from agentexec.arguments.origins import is_foreign, is_local, is_loopback
from agentexec.errors import UsageError
from agentexec.mcp.scope import Scope
from agentexec.mcp.server import build_server

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

PATH = "/mcp"

STOP_SECONDS = 3
"""Seconds that open requests have to end; a client keeps its stream open for as long as it may."""

NO_TOKEN = "Send the token of AGENTEXEC_MCP_TOKEN in the header `Authorization: Bearer TOKEN`."  # noqa: S105 - a sentence
FOREIGN = "This request comes from a page of another site; it was refused."
NOT_LOCAL = "Without a token, the server answers only programs on its own machine; set AGENTEXEC_MCP_TOKEN."


class Guard:
    """ASGI middleware that refuses requests without the token, of pages of other sites and, without a token, of other machines.

    Args:
        app: The application of the `mcp` package.
        token: Token that every request must have; None for none.
    """

    def __init__(self, app: Application, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(*refusal, send)

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        """Return the status and the reason with which a request is refused, or None."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if is_foreign(headers):
            return 403, FOREIGN
        if self._token is None:
            return None if is_local(scope.get("client"), headers) else (403, NOT_LOCAL)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        fits = hmac.compare_digest(given.strip().encode(), self._token.encode())
        return None if fits and scheme.lower() == "bearer" else (401, NO_TOKEN)


def serve_http(
    scope: Scope,
    allowed: Collection[str],
    version: str,
    address: str,
    *,
    token: str | None,
    say: Callable[[str], object],
) -> None:
    """Serve clients over streamable HTTP until SIGINT or SIGTERM.

    Args:
        scope: The tasks that the clients may see.
        allowed: Names of the acting tools that they may use.
        version: Version that they are told.
        address: HOST:PORT to listen on; port 0 for a free one.
        token: Token that every request must have; None for none, on a loopback address.
        say: Gets the URL of the server.

    Raises:
        UsageError: The address cannot be used, or is not a loopback address and there is no token.
    """
    host, port = parse_address(address)
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--http {address} is reached from other machines, so it needs a token: set AGENTEXEC_MCP_TOKEN to 16 or more "
            "random characters, or listen on 127.0.0.1."
        )
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    say(f"MCP server: http://{shown}:{listener.getsockname()[1]}{PATH} (Ctrl+C stops it)")
    config = uvicorn.Config(
        build_app(scope, allowed, version, token),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def build_app(scope: Scope, allowed: Collection[str], version: str, token: str | None) -> Guard:
    """Return the ASGI application."""
    # The guard checks where a request comes from, also behind a proxy, whose names the library would have to know.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    server = build_server(scope, allowed, version)
    return Guard(server.streamable_http_app(streamable_http_path=PATH, transport_security=unchecked), token)


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT. Raises UsageError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--http takes HOST:PORT, such as 127.0.0.1:8766, not {address!r}.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"The server cannot listen on {host}, port {port}: {error.strerror}.") from error


async def _refuse(status: int, sentence: str, send: Send) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

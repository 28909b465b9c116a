"""Server of `agentexec dashboard`: the address that it listens on, and uvicorn."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import uvicorn

from agentexec.arguments.origins import is_loopback
from agentexec.config import CONF
from agentexec.errors import SchemaError, UnavailableError, UsageError
from agentexec.runtime import RUNTIME
from agentexec.schema.tables import check_schema
from agentexec.web.dashboard_app import dashboard

STOP_SECONDS = 3
"""Seconds that open requests have to end; a browser keeps its stream of events open for as long as it may."""


def serve(host: str, port: int, *, token: bool, allow_acts: bool, say: Callable[[str], object]) -> None:
    """Serve the dashboard until SIGINT or SIGTERM.

    Args:
        host: Address to listen on. One that is not a loopback address requires a token.
        port: Port; 0 for a free one.
        token: Whether a loopback address requires a token, too.
        allow_acts: Whether readers may act.
        say: Gets the URL to open, with a new token if one is needed and no setting has it.

    Raises:
        UsageError: The address cannot be used.
    """
    needed = token or not is_loopback(host)
    new = secrets.token_urlsafe(24) if needed and CONF.dashboard_token is None else None
    app = dashboard(token=new, allow_acts=allow_acts)
    listener = _listen(host, port)
    # In the fragment, which browsers do not send: no log of a server or proxy sees the token.
    link = f"{_url(host, listener.getsockname()[1])}{f'#token={new}' if new else ''}"
    say(f"Dashboard: {link} (Ctrl+C stops it)")
    if problem := _problem():
        say(problem)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_SECONDS
    )
    uvicorn.Server(config).run(sockets=[listener])


def _problem() -> str | None:
    """Return what keeps the dashboard from showing anything, or None. It may pass, so the dashboard starts all the same."""
    try:
        check_schema(RUNTIME.engine)
    except (SchemaError, UnavailableError) as error:
        return f"It shows nothing yet: {error}"
    return None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"The dashboard cannot listen on {host}, port {port}: {error.strerror}; choose others with --host and --port."
        ) from error


def _url(host: str, port: int) -> str:
    """Return the URL to open; for an address that stands for all, one that reaches this machine from others."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

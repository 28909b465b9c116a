"""Connections by PyMySQL: with a limit for the server's first answers, and one sentence for a wrong parameter of the URL."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from sqlalchemy.engine.url import URL

from agentexec.db.urls import safe_url
from agentexec.errors import UsageError

CONNECT_SECONDS = 10
"""Seconds until a server has taken the connection, and for each of its answers until it has let the user in."""

KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
"""Options of sockets, where the system has them. A host that has vanished answers nothing: without these, a statement would
wait for it for hours. Seconds, a number, and milliseconds for the last."""


def connect_by_pymysql(url: URL) -> Any:
    """Return a connection of PyMySQL; raises its errors, or UsageError for a wrong parameter of the URL."""
    import pymysql  # noqa: PLC0415 - an extra

    arguments, parameters = url.get_dialect()().create_connect_args(url)
    parameters.setdefault("connect_timeout", CONNECT_SECONDS)
    # Only until the connection is made: users' own statements may take longer.
    is_limited = "read_timeout" not in parameters
    if is_limited:
        parameters["read_timeout"] = parameters["connect_timeout"]
    try:
        connection: Any = pymysql.connect(*arguments, **parameters)
    except (TypeError, ValueError, AttributeError, LookupError, OSError) as error:
        raise _refused(url, error) from error
    if is_limited:
        connection._read_timeout = None  # PyMySQL has no other way
    for name, value in KEEP_ALIVE.items():
        # Some systems lack one, and sockets within a machine have none.
        with contextlib.suppress(OSError, AttributeError):
            connection._sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _refused(url: URL, error: Exception) -> UsageError:
    names = ", ".join(url.query) or "none"
    reason = str(error) or type(error).__name__
    return UsageError(
        f"PyMySQL cannot connect to {safe_url(url)} with the parameters of the URL ({names}): {reason}; correct or remove "
        "the wrong one."
    )

"""The clock of the record: the time of the database, which all hosts share."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event

log = logging.getLogger("agentexec.clock")

TOLERANCE = 1.0
"""Seconds by which a host's clock may differ from the database's before it counts as wrong."""

COMPARE_SECONDS = 60.0
"""Seconds between two comparisons with the database's clock."""

_SERVER_TIME = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT UNIX_TIMESTAMP(NOW(6))",
    "mariadb": "SELECT UNIX_TIMESTAMP(NOW(6))",
}
"""Query for the server's time in seconds since the epoch. A file has no clock, and only one host opens it."""

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


running_seconds: Callable[[], float] = (
    time.monotonic if _BOOT_CLOCK is None else functools.partial(time.clock_gettime, _BOOT_CLOCK)
)
"""Returns the seconds of a clock that never jumps, and goes on while the host is suspended (Linux, macOS)."""


def host_time() -> datetime:
    """Return the present moment by the clock of this host."""
    return datetime.now(UTC)


class RecordClock:
    """Time of the record in this process: its host's, or the database's if the host's clock is wrong.

    Threads: any thread may call any method. Each attribute is replaced as a whole.

    Args:
        wall: Returns the time of the host.
        running: Returns the seconds of a clock that never jumps.
    """

    def __init__(
        self, wall: Callable[[], datetime] = host_time, running: Callable[[], float] = running_seconds
    ) -> None:
        self._wall = wall
        self._running = running
        self._compared: tuple[datetime, float] | None = None
        self._anchor: tuple[datetime, float] | None = None
        self.ahead = timedelta()
        """Time by which a test has moved the clock ahead."""

    def now(self) -> datetime:
        """Return the present moment, with its time zone."""
        anchor = self._anchor
        if anchor is None:
            return self._wall() + self.ahead
        # Not by the host's clock, which somebody may set right at any moment.
        server, at = anchor
        return server + timedelta(seconds=self._running() - at) + self.ahead

    def is_due(self) -> bool:
        """Return True if the clocks were not compared lately, or the host's was set since."""
        if self._compared is None:
            return True
        wall, at = self._compared
        passed = self._running() - at
        jumped = abs((self._wall() - wall).total_seconds() - passed) > TOLERANCE
        return jumped or passed > COMPARE_SECONDS

    def compare(self, read: Callable[[], datetime]) -> None:
        """Compare the host's clock with the server's, which `read` asks for."""
        before = self._running()
        self._compared = self._wall(), before
        server = read()
        wall, after = self._wall(), self._running()
        self._compared = wall, after
        half = (after - before) / 2
        if half > TOLERANCE:
            return  # An answer that took so long says too little.
        ahead = (wall - server).total_seconds() - half
        if abs(ahead) <= TOLERANCE + half:
            self._anchor = None
            return
        if self._anchor is None:
            log.warning(
                "The clock of this host is %.0f s %s that of the database, whose time is used instead. Set it right.",
                abs(ahead),
                "ahead of" if ahead > 0 else "behind",
            )
        self._anchor = server + timedelta(seconds=half), after


CLOCK = RecordClock()
"""The clock of this process."""


def utc_now() -> datetime:
    """Return the present moment, with its time zone, as all hosts see it."""
    return CLOCK.now()


def follow_server(engine: Engine) -> None:
    """Compare the clock of this process with that of an engine's server, about once a minute while it is used."""
    query = _SERVER_TIME.get(engine.dialect.name)
    if query is not None and not event.contains(engine, "checkout", _COMPARE[query]):
        event.listen(engine, "checkout", _COMPARE[query])


def compare_if_due(engine: Engine, connection: Any) -> None:
    """Compare the clocks by a connection that did not come from the engine's pool now, if it is time to."""
    query = _SERVER_TIME.get(engine.dialect.name)
    if query is not None:
        _COMPARE[query](connection, None, None)


def _comparing(query: str) -> Callable[[Any, Any, Any], None]:
    def compare(connection: Any, _record: Any, _proxy: Any) -> None:
        if CLOCK.is_due():
            # Whatever is wrong with the connection shows in what it was taken for.
            with contextlib.suppress(Exception):
                CLOCK.compare(lambda: _server_time(connection, query))

    return compare


def _server_time(connection: Any, query: str) -> datetime:
    try:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(query)
            return datetime.fromtimestamp(float(cursor.fetchone()[0]), UTC)
    finally:
        connection.rollback()


_COMPARE = {query: _comparing(query) for query in _SERVER_TIME.values()}
"""One listener for each query, so that an engine has it once."""

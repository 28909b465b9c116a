"""Reports of a host's processes to their supervisor: datagrams, one a second, each of which is complete by itself.

A datagram is never read in parts, so all processes share one socket. What a report could not tell, because the socket was
full, is told by the next one.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentexec.telemetry.meter import Meter

log = logging.getLogger("agentexec.supervisor")

REPORT_SECONDS = 1.0
MAX_BYTES = 131_072
"""Size of the largest report that is read; ours have less than half of that."""

SEND_SECONDS = 0.5
"""Seconds that a process waits while the socket is full."""

Report = dict[str, Any]


class ReportSocket:
    """The supervisor's end of the reports, and the end that its processes inherit."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        whole, part = divmod(SEND_SECONDS, 1)
        timeout = struct.pack("ll", int(whole), int(part * 1_000_000))
        self._theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)

    @property
    def descriptor(self) -> int:
        """File descriptor of the processes' end."""
        return self._theirs.fileno()

    def receive(self) -> Report | None:
        """Wait for the next report, and return it; None once the socket is closed. Invalid ones are skipped."""
        while True:
            try:
                text = self._ours.recv(MAX_BYTES)
            except OSError:
                return None
            if not text:
                return None  # `close` has shut the socket down
            try:
                report = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(report, dict):
                return report

    def close(self) -> None:
        """End `receive` in its thread, and close both ends."""
        self._ours.shutdown(socket.SHUT_RDWR)
        self._ours.close()
        self._theirs.close()


class Reporter:
    """Thread of a process that reports to the supervisor until stopped.

    Args:
        descriptor: File descriptor of the socket; negative for no reports.
        process_id: Id of the process.
        state: Returns the state of the process.
        meter: What the process counts, if it counts.
    """

    def __init__(
        self, descriptor: int, process_id: str, state: Callable[[], Report], meter: Meter | None = None
    ) -> None:
        self._socket = None if descriptor < 0 else socket.socket(fileno=descriptor)
        self._process_id = process_id
        self._state = state
        self._meter = meter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-reports", daemon=True)

    def start(self) -> None:
        """Start the thread, which reports immediately."""
        if self._socket is not None:
            self._thread.start()

    def stop(self) -> None:
        """Send the last report, and end the thread."""
        if self._socket is not None and not self._stop.is_set():
            self._stop.set()
            self._thread.join(REPORT_SECONDS)

    def _run(self) -> None:
        while True:
            ended = self._stop.is_set()
            try:
                self.report()
            except Exception:
                log.exception("Cannot report to the supervisor; trying again.")
            if ended:
                return
            self._stop.wait(REPORT_SECONDS)

    def report(self) -> None:
        """Send the state, and what was counted since the last report, in as many datagrams as it needs."""
        state = self._state()
        while True:
            counted = self._meter.take() if self._meter is not None else []
            text = json.dumps({**state, "process": self._process_id, "counted": counted}).encode()
            try:
                if self._socket is not None:
                    self._socket.send(text)
            except OSError:
                if self._meter is not None:
                    self._meter.merge(counted)
                return
            if not counted:
                return

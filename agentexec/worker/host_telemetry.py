"""Telemetry of a host: what its supervisor hears from its processes, and whom it tells."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from agentexec.config import Settings
from agentexec.worker.health import Health
from agentexec.worker.http_server import Answer, ProbeServer
from agentexec.worker.probe import State, Verdict
from agentexec.worker.reports import ReportSocket
from agentexec.worker.sd_notify import NOTIFY_VARIABLE, ServiceManager


class HostTelemetry:
    """Probes and the service manager of one supervisor, from the constructor to `close`.

    Without a port and a service manager it does nothing, and the processes send no reports.

    Threads: the supervisor's loop calls the methods. A thread takes the reports.

    Args:
        settings: Settings of the supervisor.

    Raises:
        SettingsError: A port cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._health = Health()
        self._servers = _servers(settings, self._health)
        self._socket = ReportSocket() if self._servers or NOTIFY_VARIABLE in os.environ else None
        self._manager: ServiceManager | None = None
        self._told_ready = self._told_stopping = False

    def start(self, manager: ServiceManager | None) -> None:
        """Take reports, answer probes, and speak to a service manager, if this process is its service."""
        self._manager = manager if manager is not None and manager.listens else None
        if self._socket is not None:
            threading.Thread(
                target=self._receive, args=(self._socket,), name="agentexec-receive", daemon=True
            ).start()
        for server in self._servers:
            server.start()

    @property
    def descriptor(self) -> int:
        """File descriptor to which processes report; -1 for no reports."""
        return -1 if self._socket is None else self._socket.descriptor

    def note_turn(self, state: State, workers: int, wanted: int, *, lasting: bool) -> None:
        """Note a turn of the supervisor's loop, which has so many of the wanted worker processes."""
        self._health.note_turn(state, lasting=lasting)
        if self._manager is None:
            return
        if state == "ready" and not self._told_ready and self._health.serving():
            self._told_ready = True
            self._manager.tell("READY=1", f"MAINPID={os.getpid()}")
        if state == "draining" and not self._told_stopping:
            self._told_stopping = True
            self._manager.tell("STOPPING=1")
        self._manager.beat(f"{state.capitalize()}: {workers} of {wanted} worker processes run.")

    def close(self) -> None:
        """Close the ports, and hear no more."""
        for server in self._servers:
            server.close()
        if self._socket is not None:
            self._socket.close()

    def _receive(self, reports: ReportSocket) -> None:
        while (report := reports.receive()) is not None:
            self._health.note_report(report)


def _servers(settings: Settings, health: Health) -> list[ProbeServer]:
    if settings.health_port is None:
        return []
    pages = {"/livez": _page(health.live), "/readyz": _page(health.ready)}
    return [ProbeServer(settings.health_port, "AGENTEXEC_HEALTH_PORT", pages)]


def _page(judge: Callable[[], Verdict]) -> Callable[[], Answer]:
    def answer() -> Answer:
        verdict = judge()
        return Answer(
            200 if verdict.passes else 503, "text/plain; charset=utf-8", f"{verdict.text}\n".encode()
        )

    return answer

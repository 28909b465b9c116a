"""Telemetry of a host: what its supervisor hears from its processes, and whom it tells."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from agentexec.errors import SettingsError
from agentexec.worker.child_processes import ChildProcesses, Restart
from agentexec.worker.health import Health
from agentexec.worker.host_settings import HostSettings
from agentexec.worker.probe import State, Verdict
from agentexec.worker.reports import ReportSocket
from agentexec.worker.sd_notify import NOTIFY_VARIABLE, ServiceManager

if TYPE_CHECKING:
    from agentexec.worker.host_metrics import HostMetrics
    from agentexec.worker.http_server import Answer, ProbeServer


class HostTelemetry:
    """Probes and the service manager of one supervisor, from the constructor to `close`.

    Without a port and a service manager it does nothing, and the processes send no reports.

    Threads: the supervisor's loop calls the methods. A thread takes the reports.

    Args:
        settings: HostSettings of the supervisor.

    Raises:
        SettingsError: A port cannot be used, or a library is missing.
    """

    def __init__(self, settings: HostSettings) -> None:
        if settings.opentelemetry and not _has_opentelemetry():
            raise SettingsError(
                "AGENTEXEC_OPENTELEMETRY needs OpenTelemetry; install it with: pip install 'agentexec[otel]'."
            )
        self._health = Health()
        self._metrics = None if settings.metrics_port is None else _metrics(self._health)
        self._servers = _servers(settings, self._health, self._metrics)
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

    def note_turn(
        self, state: State, children: ChildProcesses, restarts: Mapping[Restart, int], *, lasting: bool
    ) -> None:
        """Note a turn of the supervisor's loop; `lasting`: a worker process lasts, or none is supposed to run."""
        workers = sum(worker.alive for worker in children.workers)
        self._health.note_turn(state, lasting=lasting)
        self._health.keep_workers({child.id for child in children.all_workers if child.alive})
        if self._metrics is not None:
            self._metrics.note_turn(workers, restarts)
        if self._manager is None:
            return
        if state == "ready" and not self._told_ready and self._health.serving():
            self._told_ready = True
            self._manager.tell("READY=1", f"MAINPID={os.getpid()}")
        if state == "draining" and not self._told_stopping:
            self._told_stopping = True
            self._manager.tell("STOPPING=1")
        self._manager.beat(
            f"{state.capitalize()}: {workers} of {len(children.workers)} worker processes run."
        )

    def close(self) -> None:
        """Close the ports, and hear no more."""
        for server in self._servers:
            server.close()
        if self._socket is not None:
            self._socket.close()

    def _receive(self, reports: ReportSocket) -> None:
        while (report := reports.receive()) is not None:
            self._health.note_report(report)
            if self._metrics is not None:
                self._metrics.note_report(report)


def _has_opentelemetry() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        return False


def _metrics(health: Health) -> HostMetrics:
    # Imported on use: the supervisor stays small without it.
    from agentexec.worker.host_metrics import HostMetrics  # noqa: PLC0415

    return HostMetrics(health)


def _servers(settings: HostSettings, health: Health, metrics: HostMetrics | None) -> list[ProbeServer]:
    if settings.health_port is None and settings.metrics_port is None:
        return []
    # Imported on use, as above.
    from agentexec.worker.http_server import Answer, ProbeServer  # noqa: PLC0415

    pages: dict[tuple[int, str], dict[str, Callable[[], Answer]]] = {}
    if settings.health_port is not None:
        probes = {"/livez": _page(health.live), "/readyz": _page(health.ready)}
        pages[settings.health_port, "AGENTEXEC_HEALTH_PORT"] = probes
    if settings.metrics_port is not None and metrics is not None:
        shown: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: Answer(200, metrics.content_type, metrics.text())
        }
        if settings.metrics_port == settings.health_port:
            probes.update(shown)
        else:
            pages[settings.metrics_port, "AGENTEXEC_METRICS_PORT"] = shown
    address = settings.listen_address
    return [ProbeServer(port, setting, found, address) for (port, setting), found in pages.items()]


def _page(judge: Callable[[], Verdict]) -> Callable[[], Answer]:
    # Imported on use, as above.
    from agentexec.worker.http_server import Answer  # noqa: PLC0415

    def answer() -> Answer:
        verdict = judge()
        return Answer(
            200 if verdict.passes else 503, "text/plain; charset=utf-8", f"{verdict.text}\n".encode()
        )

    return answer

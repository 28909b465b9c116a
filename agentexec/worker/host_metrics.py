"""Metrics of a host: what its processes counted, added up, and the gauges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from agentexec.errors import SettingsError
from agentexec.telemetry.meter import Meter, valid_delta
from agentexec.telemetry.names import (
    COUNTED,
    INFO,
    LEASES,
    OLDEST_AGE,
    PROCESSES,
    QUEUE_TASKS,
    RESTARTS,
    RUNNING,
    SERVER_UP,
)
from agentexec.worker.child_processes import Restart
from agentexec.worker.health import ANSWER_SECONDS, SERVERS, Health

try:
    from agentexec.telemetry import exposition
except ImportError:
    exposition = None  # type: ignore[assignment]

STATES = ("ready", "delayed", "leased")


class HostMetrics:
    """Metrics of one host. Threads: any may call everything.

    Args:
        health: Latest reports of the processes.

    Raises:
        SettingsError: prometheus-client is not installed.
    """

    content_type = "" if exposition is None else exposition.CONTENT_TYPE

    def __init__(self, health: Health) -> None:
        if exposition is None:
            raise SettingsError(
                "AGENTEXEC_METRICS_PORT needs prometheus-client; install it with: pip install 'agentexec[metrics]'."
            )
        self._render: Callable[..., bytes] = exposition.render
        self._reading: Callable[..., Any] = exposition.Reading
        self._health = health
        self._totals = Meter()
        self._version = metadata.version("agentexec")
        self._processes = 0
        self._restarts: dict[tuple[str, tuple[str, ...]], list[float]] = {}

    def note_report(self, report: Mapping[str, Any]) -> None:
        """Add what a process has counted. What cannot be a count is left out: the user's code runs there."""
        counted = report.get("counted")
        deltas = [valid_delta(series, COUNTED) for series in counted] if isinstance(counted, list) else []
        self._totals.merge(delta for delta in deltas if delta is not None)

    def note_turn(self, processes: int, restarts: Mapping[Restart, int]) -> None:
        """Note the number of living worker processes, and how many were replaced so far, by reason."""
        self._processes = processes
        self._restarts = {
            (RESTARTS.name, (str(reason),)): [float(number)] for reason, number in restarts.items()
        }

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return self._render({**self._totals.values(), **self._restarts}, self._readings())

    def _readings(self) -> Iterator[Any]:
        yield self._reading(INFO, (self._version,), 1)
        yield self._reading(PROCESSES, (), self._processes)
        yield self._reading(RUNNING, (), self._health.sum_of("running"))
        yield self._reading(LEASES, (), self._health.sum_of("leases"))
        for server in SERVERS:
            age = self._health.age_of(server)
            yield self._reading(SERVER_UP, (server,), int(age is not None and age < ANSWER_SECONDS))
        for queue, depth in _items(self._health.latest_of("depth")):
            for state in STATES:
                yield self._reading(QUEUE_TASKS, (queue, state), _number(_items_by_name(depth).get(state)))
        for queue, age in _items(self._health.latest_of("oldest")):
            yield self._reading(OLDEST_AGE, (queue,), _number(age))


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _items_by_name(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

"""Providers of OpenTelemetry in worker processes, set up after the fork: their threads would not survive it."""

from __future__ import annotations

import os
import threading
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import metrics, trace

OTLP = "otlp"
ENTRY_POINT = {"otlp": "otlp_proto_http"}
"""Names of exporters that differ between the variable and the packages."""

DEFAULT_SERVICE = "agentexec"


def set_up(instance: str) -> None:
    """Set up providers as the variables `OTEL_…` say, unless the application has its own.

    Args:
        instance: Name of the process, unique among all.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    # Imported on use: an application that brings its providers may do without the SDK.
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    own = {"service.instance.id": instance} | ({} if named else {"service.name": DEFAULT_SERVICE})
    resource = Resource.create(own)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        exporters = _exporters("TRACES")
        if exporters:
            provider = TracerProvider(resource=resource)
            for exporter in exporters:
                provider.add_span_processor(BatchSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
    if not hasattr(metrics.get_meter_provider(), "force_flush"):
        readers = [PeriodicExportingMetricReader(exporter) for exporter in _exporters("METRICS")]
        if readers:
            metrics.set_meter_provider(MeterProvider(readers, resource=resource))


def flush(seconds: float) -> bool:
    """Export what waits for its next batch. Returns False if that takes longer than some seconds."""
    thread = threading.Thread(target=_flush, args=(seconds,), name="agentexec-otel", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _flush(seconds: float) -> None:
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is not None:
            force_flush(int(seconds * 1000))


def _exporters(signal: str) -> list[Any]:
    """Return new exporters of a signal, as `OTEL_…_EXPORTER` names them. Raises ValueError for an unknown one."""
    chosen = [name.strip() for name in os.environ.get(f"OTEL_{signal}_EXPORTER", OTLP).split(",")]
    exporters = []
    for name in chosen:
        if name in ("", "none"):
            continue
        found = entry_points(
            group=f"opentelemetry_{signal.lower()}_exporter", name=ENTRY_POINT.get(name, name)
        )
        if not found:
            raise ValueError(
                f"OTEL_{signal}_EXPORTER names {name}, for which no exporter is installed; use otlp, console or none."
            )
        exporters.append(next(iter(found)).load()())
    return exporters

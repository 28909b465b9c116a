"""Spans and metrics that a process has exported to OpenTelemetry, kept in memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind


class Exported:
    """Exports of one process."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader])

    def spans(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        found = sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)
        return [span for span in found if kind in (None, span.kind)]

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the numbers of values, by metric and operation."""
        data = self._reader.get_metrics_data()
        found: Counter[tuple[str, str]] = Counter()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        operation = str((point.attributes or {})["messaging.operation.name"])
                        found[metric.name, operation] += getattr(point, "count", None) or getattr(
                            point, "value", 0
                        )
        return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int | None]:
    """Return the id of a span's trace, and that of its parent."""
    assert span.context
    return span.context.trace_id, span.parent.span_id if span.parent else None

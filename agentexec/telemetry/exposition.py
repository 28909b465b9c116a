"""The text that Prometheus reads, made by its own library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agentexec.telemetry.names import COUNTED, GAUGES, Counter, Gauge, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Counted = Mapping[tuple[str, tuple[str, ...]], list[float]]


class Reading(NamedTuple):
    """Value of a gauge."""

    gauge: Gauge
    labels: tuple[str, ...]
    value: float


def render(counted: Counted, readings: Iterable[Reading]) -> bytes:
    """Return all metrics as text. Each is described, also before its first series."""
    registry = CollectorRegistry()
    registry.register(_Source(counted, list(readings)))
    return generate_latest(registry)


class _Source(Collector):
    def __init__(self, counted: Counted, readings: list[Reading]) -> None:
        self._counted = counted
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for metric in COUNTED.values():
            yield self._counters(metric) if isinstance(metric, Counter) else self._histograms(metric)
        for gauge in GAUGES:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for reading in self._readings:
                if reading.gauge is gauge:
                    family.add_metric(reading.labels, reading.value)
            yield family

    def _series(self, name: str) -> Iterator[tuple[tuple[str, ...], list[float]]]:
        return ((labels, amounts) for (named, labels), amounts in self._counted.items() if named == name)

    def _counters(self, counter: Counter) -> Metric:
        family = CounterMetricFamily(counter.name, counter.help, labels=counter.labels)
        for labels, (amount,) in self._series(counter.name):
            family.add_metric(labels, amount)
        return family

    def _histograms(self, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
        bounds = [*(str(bound) for bound in histogram.buckets), "+Inf"]
        for labels, (*counts, total) in self._series(histogram.name):
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        return family

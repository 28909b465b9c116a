"""Meter of one process: what it counted and measured since its last report to the supervisor.

Counting is a few additions in memory. No metric has labels that grow without bound: of names that come from the queue or
from models, the first MAX_VALUES are told apart, and all others count as "other".
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from agentexec.telemetry.names import Counter, Histogram

MAX_VALUES = 200
"""Values of one label that are told apart."""

OTHER = "other"

MAX_SERIES = 100
"""Series in one report."""

Delta = tuple[str, tuple[str, ...], list[float]]
"""Increase of one series: name, labels, and the amount; of a histogram the counts of its buckets and the sum."""


class Labels:
    """Values of labels, bounded in number. Threads: the caller's lock protects it."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def bound(self, metric: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return labels with those values replaced that are too many; only the first label of a metric is unbounded."""
        if not labels:
            return labels
        known = self._known.setdefault(metric, set())
        value = labels[0]
        if value not in known:
            if len(known) >= MAX_VALUES:
                return (OTHER, *labels[1:])
            known.add(value)
        return labels


class Meter:
    """Counters and histograms of a process. Threads: any may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labels = Labels()
        self._values: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        self._sources: list[Callable[[], object]] = []

    def add_source(self, count: Callable[[], object]) -> None:
        """Have a function called before the values are read: it counts what its owner has only noted so far."""
        self._sources.append(count)

    def add(self, counter: Counter, *labels: str, amount: float = 1) -> None:
        """Increase a counter."""
        with self._lock:
            series = self._values.get((counter.name, labels))
            if series is None:
                series = self._series(counter.name, labels, 1)
            series[0] += amount

    def observe(self, histogram: Histogram, value: float, *labels: str) -> None:
        """Add a value to a histogram."""
        self.observe_all(histogram, (value,), *labels)

    def observe_all(self, histogram: Histogram, values: Iterable[float], *labels: str) -> None:
        """Add values to a histogram, under one look-up of its series."""
        with self._lock:
            series = self._values.get((histogram.name, labels))
            if series is None:
                series = self._series(histogram.name, labels, histogram.size)
            for value in values:
                series[bisect_left(histogram.buckets, value)] += 1
                series[-1] += value

    def _series(self, name: str, labels: tuple[str, ...], size: int) -> list[float]:
        return self._values.setdefault((name, self._labels.bound(name, labels)), [0.0] * size)

    def take(self) -> list[Delta]:
        """Return some of the increases since the last call, and forget them."""
        self._count_noted()
        with self._lock:
            taken = []
            while self._values and len(taken) < MAX_SERIES:
                (name, labels), amounts = self._values.popitem()
                taken.append((name, labels, amounts))
            return taken

    def merge(self, deltas: Iterable[Delta]) -> None:
        """Add increases, such as those that `take` returned and nobody received."""
        with self._lock:
            for name, labels, amounts in deltas:
                series = self._series(name, labels, len(amounts))
                for place, amount in enumerate(amounts):
                    series[place] += amount

    def values(self) -> dict[tuple[str, tuple[str, ...]], list[float]]:
        """Return a copy of what was counted and not taken."""
        self._count_noted()
        with self._lock:
            return {key: list(amounts) for key, amounts in self._values.items()}

    def _count_noted(self) -> None:
        for count in self._sources:
            count()


def valid_delta(data: Any, metrics: Mapping[str, Counter | Histogram]) -> Delta | None:
    """Return a series of a report, which another process has sent; None if it cannot be one."""
    try:
        name, labels, amounts = data
        metric = metrics[name]
        if len(labels) != len(metric.labels) or len(amounts) != metric.size:
            return None
        numbers = [float(amount) for amount in amounts]
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    valid = all(isinstance(label, str) for label in labels) and all(0 <= number < inf for number in numbers)
    return (name, tuple(labels), numbers) if valid else None

"""Figures: numbers with a name and a unit, and how much is measured for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the report. `samples`: what it is the median of, where it was measured more than once."""

    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    """Throughput is the median of so many rounds."""
    enqueues: int
    many: int
    redis: int
    pick_ups: int
    rests: int
    """Pick-ups after a rest, which take a second each."""
    results: int
    sleepers: int
    idle_seconds: float
    starts: int
    full: bool = False


USUAL = Size(3, 2_000, 5_000, 3_000, 100, 25, 100, 500, 10.0, 3)
QUICK = Size(1, 300, 1_000, 1_000, 30, 5, 30, 500, 4.0, 1)


def per_second(name: str, unit: str, work: Callable[[], int], rounds: int) -> Figure:
    """The rate at which `work`, which returns how much it did, gets on."""
    rates: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        number = work()
        rates.append(number / (time.perf_counter() - start))
    return middle(name, unit, rates)


def middle(name: str, unit: str, samples: Iterable[float], note: str = "") -> Figure:
    """The median of samples."""
    values = tuple(samples)
    return Figure(name, median(values), unit, values if len(values) > 1 else (), note)


def spread(name: str, milliseconds: Iterable[float]) -> tuple[Figure, Figure]:
    """The median and the 95th percentile of times."""
    values = tuple(sorted(milliseconds))
    p95 = values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
    return (
        Figure(f"{name}, p50", median(values), "ms", values),
        Figure(f"{name}, p95", p95, "ms"),
    )

"""Figures: numbers with a name and a unit, and the size of the measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """Number of the report. `samples`: the values of which it is the median, if it was measured more than once."""

    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the measurements."""

    rounds: int
    """Number of rounds of which throughput is the median."""
    enqueues: int
    many: int
    redis: int
    pick_ups: int
    rests: int
    """Pick-ups by workers that have been idle, which take a second each."""
    results: int
    sleepers: int
    idle_seconds: float
    starts: int
    full: bool = False


USUAL = Size(3, 2_000, 5_000, 3_000, 100, 25, 100, 500, 10.0, 3)
QUICK = Size(1, 300, 1_000, 1_000, 30, 5, 30, 500, 4.0, 1)


def interleave(unit: str, work: Mapping[str, Callable[[], int]], *, rounds: int) -> Iterator[Figure]:
    """Yield the rate of each piece of work, which returns the amount that it did.

    All take turns in each round, so that other load on the machine affects all of them.
    """
    rates: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, do in work.items():
            start = time.perf_counter()
            number = do()
            rates[name].append(number / (time.perf_counter() - start))
    for name, samples in rates.items():
        yield median_of(name, unit, samples)


def median_of(name: str, unit: str, samples: Iterable[float], note: str = "") -> Figure:
    """Return the median of samples."""
    values = tuple(samples)
    return Figure(name, median(values), unit, values if len(values) > 1 else (), note)


def percentiles(name: str, milliseconds: Iterable[float]) -> tuple[Figure, Figure]:
    """Return the median and the 95th percentile of times."""
    values = tuple(sorted(milliseconds))
    p95 = values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
    return (
        Figure(f"{name}, p50", median(values), "ms", values),
        Figure(f"{name}, p95", p95, "ms"),
    )

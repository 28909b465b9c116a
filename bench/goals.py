"""Comparison of figures with their floors and with the goals of the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.figures import Figure
from bench.floors import REDIS_POP, REDIS_WAKE, SQL_BATCH, SQL_ONE, SQL_SAME

REDIS_WAKE_P50 = f"{REDIS_WAKE}, p50"
PYTHON = "python -c pass"


@dataclass(frozen=True, slots=True)
class Goal:
    """Limit for a figure, or for its share of the floor."""

    limit: float
    above: bool
    share: bool = False
    beyond: float | None = None
    """Next goal after this one."""

    def met_by(self, value: float, floor: float | None) -> bool | None:
        """Return whether a value meets the goal; None if its floor was not measured."""
        if self.share:
            if not floor:
                return None
            value /= floor
        return value >= self.limit if self.above else value <= self.limit

    def __str__(self) -> str:
        limit = f"{self.limit:.0%} of floor" if self.share else f"{self.limit:,g}"
        after = f", then {self.beyond:,g}" if self.beyond is not None else ""
        return f"{'≥' if self.above else '≤'} {limit}{after}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Floor and goal of the figures whose name starts with `prefix`; the longest matching prefix wins."""

    prefix: str
    floor: str | float | None = None
    """Name of a figure, or a number that needs no measurement."""
    goal: Goal | None = None
    redis_floor: str | None = None
    redis_goal: Goal | None = None
    """Goal on targets with Redis, where it differs; likewise the floor."""


_START = Goal(0.1, above=False)
_NO_MEMORY = Goal(1000, above=False)

COMPARISONS = (
    Comparison(SQL_SAME, SQL_ONE),
    Comparison("enqueue, one at a time", SQL_ONE, Goal(0.6, above=True, share=True)),
    Comparison("enqueue_sync, one at a time", SQL_ONE, Goal(0.6, above=True, share=True)),
    Comparison("enqueue, 50", SQL_ONE),
    Comparison("enqueue_many", SQL_BATCH, Goal(10_000, above=True)),
    Comparison(
        "drain of",
        SQL_BATCH,
        Goal(1_500, above=True),
        REDIS_POP,
        Goal(3_000, above=True, beyond=4_028),
    ),
    Comparison("processor time of a task, metrics", None, Goal(2, above=False)),
    Comparison("drain without fairness_key", SQL_BATCH, None, REDIS_POP),
    Comparison(
        "drain with fairness_key",
        "drain without fairness_key",
        Goal(0.9, above=True, share=True),
        "drain without fairness_key",
    ),
    Comparison("drain without lock_key", SQL_BATCH, None, REDIS_POP),
    Comparison(
        "drain with lock_key",
        "drain without lock_key",
        Goal(0.7, above=True, share=True),
        "drain without lock_key",
        Goal(0.7, above=True, share=True),
    ),
    Comparison("pick-up", None, None, REDIS_WAKE_P50),
    Comparison(
        "pick-up after 50 ms of rest, from enqueue's return, p50",
        None,
        Goal(10, above=False),
        REDIS_WAKE_P50,
        Goal(2, above=False),
    ),
    Comparison(
        "pick-up after 1.1 s of rest, from enqueue's return, p50",
        None,
        Goal(10, above=False),
        REDIS_WAKE_P50,
        Goal(2, above=False),
    ),
    Comparison("get_result of", None, None, REDIS_WAKE_P50),
    Comparison("get_result of a task that takes 50 ms, p50", None, Goal(5, above=False), REDIS_WAKE_P50),
    Comparison("get_result of a no-op task, p50", None, Goal(5, above=False), REDIS_WAKE_P50),
    Comparison("500 tasks of 1 s", 1.0),
    Comparison("500 tasks of 1 s, 2 processes of 250", 1.0, Goal(1.2, above=False)),
    Comparison("500 tasks of 1 s, 2 processes of 250, by", 1.0, None),
    Comparison("500 tasks of 1 s, 2 processes of 250, memory"),
    Comparison("10,000 tasks of 1 s", 1.0),
    Comparison("10,000 tasks of 1 s, 2 processes of 5,000, memory", None, _NO_MEMORY),
    Comparison("idle worker", None, Goal(0.5, above=False)),
    Comparison("import agentexec", PYTHON, Goal(0.35, above=False)),
    Comparison("import agentexec, with", PYTHON),
    Comparison("agentexec --help", PYTHON, Goal(0.2, above=False)),
    Comparison("agentexec list", PYTHON, Goal(0.4, above=False)),
    Comparison("agentexec monitor", PYTHON, Goal(0.4, above=False)),
    Comparison("`agents` in sys.modules", None, Goal(0, above=False)),
    Comparison("start of", PYTHON),
    Comparison("50 model calls, durable", "50 model calls, not durable"),
    Comparison("50 turns with a tool, durable", "50 turns with a tool, not durable"),
    Comparison("journal, per", None, Goal(3, above=False)),
    Comparison("resume after 50 turns", None, Goal(200, above=False)),
    Comparison("pipelines of 4 steps", "no-op tasks, in the same run"),
    Comparison("DBOS: ", "pipelines of 4 steps"),
    Comparison("kill -9 of a worker until its successor runs", None, _START),
    Comparison("kill -9 of all processes, and restart, until the first", PYTHON, Goal(2, above=False)),
    Comparison("kill -9 of all processes, and restart, until 20", None, Goal(7, above=False)),
)


@dataclass(frozen=True, slots=True)
class Result:
    """Figure with its floor and goal."""

    figure: Figure
    floor: float | None
    floor_name: str | None
    goal: Goal | None

    @property
    def ratio(self) -> float | None:
        return self.figure.value / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        return self.goal.met_by(self.figure.value, self.floor) if self.goal else None


def compare(figure: Figure, floors: Mapping[str, float], *, on_redis: bool) -> Result:
    """Return a figure with its floor, if that was measured, and its goal."""
    matching = [comparison for comparison in COMPARISONS if figure.name.startswith(comparison.prefix)]
    if not matching:
        return Result(figure, None, None, None)
    comparison = max(matching, key=lambda comparison: len(comparison.prefix))
    floor = (comparison.redis_floor if on_redis else None) or comparison.floor
    goal = (comparison.redis_goal if on_redis else None) or comparison.goal
    if isinstance(floor, str):
        return Result(figure, floors.get(floor), floor, goal)
    return Result(figure, floor, None, goal)

"""What the figures are held against: the floor beside each, and the goal that the project has set for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.figures import Figure
from bench.floors import REDIS_POP, REDIS_WAKE, SQL_BATCH, SQL_ONE, SQL_SAME

REDIS_WAKE_P50 = f"{REDIS_WAKE}, p50"
PYTHON = "python -c pass"


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for a figure, or for its share of the floor."""

    limit: float
    above: bool
    share: bool = False
    beyond: float | None = None
    """What to reach after the goal."""

    def met_by(self, value: float, floor: float | None) -> bool | None:
        """None if it cannot be said: the floor was not measured."""
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
class Beside:
    """The floors and goals of the figures whose name starts with `prefix`; of several, the longest prefix holds."""

    prefix: str
    floor: str | float | None = None
    """A figure's name, or a number that needs no measuring."""
    goal: Goal | None = None
    redis_floor: str | None = None
    redis_goal: Goal | None = None
    """On targets with Redis, where these differ."""


_START = Goal(0.1, above=False)
_NO_MEMORY = Goal(1000, above=False)

BESIDE = (
    Beside(SQL_SAME, SQL_ONE),
    Beside("enqueue, one at a time", SQL_ONE, Goal(0.6, above=True, share=True)),
    Beside("enqueue_sync, one at a time", SQL_ONE, Goal(0.6, above=True, share=True)),
    Beside("enqueue, 50", SQL_ONE),
    Beside("enqueue_many", SQL_BATCH, Goal(10_000, above=True)),
    Beside(
        "drain of",
        SQL_BATCH,
        Goal(1_500, above=True),
        REDIS_POP,
        Goal(3_000, above=True, beyond=4_028),
    ),
    Beside("pick-up", None, None, REDIS_WAKE_P50),
    Beside(
        "pick-up after 50 ms of rest, from enqueue's return, p50",
        None,
        Goal(10, above=False),
        REDIS_WAKE_P50,
        Goal(2, above=False),
    ),
    Beside(
        "pick-up after 1.1 s of rest, from enqueue's return, p50",
        None,
        Goal(10, above=False),
        REDIS_WAKE_P50,
        Goal(2, above=False),
    ),
    Beside("get_result of", None, None, REDIS_WAKE_P50),
    Beside("get_result of a task that takes 50 ms, p50", None, Goal(5, above=False), REDIS_WAKE_P50),
    Beside("get_result of a no-op task, p50", None, Goal(5, above=False), REDIS_WAKE_P50),
    Beside("500 tasks of 1 s", 1.0),
    Beside("500 tasks of 1 s, 2 processes of 250", 1.0, Goal(1.2, above=False)),
    Beside("500 tasks of 1 s, 2 processes of 250, by", 1.0, None),
    Beside("500 tasks of 1 s, 2 processes of 250, memory"),
    Beside("10,000 tasks of 1 s", 1.0),
    Beside("10,000 tasks of 1 s, 2 processes of 5,000, memory", None, _NO_MEMORY),
    Beside("idle worker", None, Goal(0.5, above=False)),
    Beside("import agentexec", PYTHON, Goal(0.35, above=False)),
    Beside("import agentexec, with", PYTHON),
    Beside("agentexec --help", PYTHON, Goal(0.2, above=False)),
    Beside("agentexec list", PYTHON, Goal(0.4, above=False)),
    Beside("agentexec monitor", PYTHON, Goal(0.4, above=False)),
    Beside("`agents` in sys.modules", None, Goal(0, above=False)),
    Beside("start of", PYTHON),
    Beside("50 model calls, durable", "50 model calls, not durable"),
    Beside("50 turns with a tool, durable", "50 turns with a tool, not durable"),
    Beside("journal, per", None, Goal(3, above=False)),
    Beside("resume after 50 turns", None, Goal(200, above=False)),
    Beside("pipelines of 4 steps", "no-op tasks, in the same run"),
    Beside("DBOS: ", "pipelines of 4 steps"),
    Beside("kill -9 of a worker until its successor runs", None, _START),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A figure with what it is held against."""

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


def judge(figure: Figure, floors: Mapping[str, float], *, on_redis: bool) -> Judged:
    """Put a figure beside its floor, if that was measured, and its goal."""
    fitting = [beside for beside in BESIDE if figure.name.startswith(beside.prefix)]
    if not fitting:
        return Judged(figure, None, None, None)
    beside = max(fitting, key=lambda one: len(one.prefix))
    floor = (beside.redis_floor if on_redis else None) or beside.floor
    goal = (beside.redis_goal if on_redis else None) or beside.goal
    if isinstance(floor, str):
        return Judged(figure, floors.get(floor), floor, goal)
    return Judged(figure, floor, None, goal)

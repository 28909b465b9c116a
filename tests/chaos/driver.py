"""A run: faults by a schedule, then rest, then the checks."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import or_, update

import agentexec as ax
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.errors import UnavailableError
from agentexec.runtime import RUNTIME
from agentexec.schedules.record import find_schedules, pause
from agentexec.webhooks.record import MESSAGE, PENDING
from tests.chaos.answers import answer_all
from tests.chaos.checks import CHECKS, Evidence
from tests.chaos.leftovers import find_leftovers, is_quiet
from tests.chaos.names import SIDE
from tests.chaos.plan import Action, clock_offset, draw_plan
from tests.chaos.world import World, count_runs
from tests.waiting import patient

LATEST = patient(60.0)
"""Seconds after the last fault within which everything must have ended."""

SOON = 20.0
"""Seconds that a message may wait for its next try: the claim of a sender that lives ends by then."""

MAX_SHOWN = 40
"""Most findings that are shown."""


@dataclasses.dataclass
class Report:
    """Report of a run."""

    target: str
    seed: int
    seconds: float
    actions: Counter[str]
    tasks: Counter[str] = dataclasses.field(default_factory=Counter)
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        """Return the report for people; on failure it ends with the findings."""
        lines = [
            f"{self.target}, seed {self.seed}, {self.seconds:.0f} s: {self.actions.total()} faults, "
            f"{self.tasks.total()} tasks",
            f"  faults: {_counts(self.actions)}",
            f"  tasks: {_counts(self.tasks)}",
            *(f"  {name}: {value:g}" for name, value in self.numbers.items()),
        ]
        shown = self.findings[:MAX_SHOWN]
        more = len(self.findings) - len(shown)
        lines += [f"  WRONG: {finding}" for finding in shown] + ([f"  … and {more} more"] if more else [])
        lines.append("  Nothing is wrong." if not self.findings else f"  {len(self.findings)} findings")
        return "\n".join(lines)


def run(
    seed: int,
    seconds: float,
    target: str,
    *,
    rate: float = 2.0,
    plan: list[Action] | None = None,
    say: Callable[[str], None] = lambda line: None,
    folder: Path | None = None,
) -> Report:
    """Carry out one run, and return what was found.

    Args:
        seed: Seed of the schedule of faults and of the work.
        seconds: Length of the faults, without the start and the checks.
        target: Name of the deployment, one of TARGETS.
        rate: Operations that each of the producers starts per second.
        plan: Faults, instead of those of the seed.
        say: Prints a line about the progress.
        folder: Empty folder for the files of the run, which are kept; by default a temporary one.
    """
    plan = draw_plan(seed, seconds, target) if plan is None else plan
    report = Report(target, seed, seconds, Counter(action.kind for action in plan))
    clock = clock_offset(seed, target)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        place = folder or Path(temporary)
        with World(place, target, seed=seed, rate=rate, clock=clock) as world:
            world.run(plan, seconds, say)
            say("The faults are over; waiting for the work to end.")
            world.heal()
            report.numbers["seconds until a schedule ticked again"] = round(wait_for_tick(), 1)
            report.numbers["seconds until all was quiet"] = round(wait_for_quiet(), 1)
            world.stop()
            evidence = Evidence(world)
            report.tasks = Counter(row.agent_type for row in evidence.rows.values())
            report.numbers |= evidence.numbers()
            if report.numbers["seconds until a schedule ticked again"] >= LATEST:
                report.findings.append("no schedule ticks after the faults")
            for check in CHECKS:
                report.findings += check(evidence)
            report.findings += find_leftovers(world)
    return report


def wait_for_tick() -> float:
    """Wait until a schedule ticks, and return the seconds that it took; LATEST if none does."""
    started, before = time.monotonic(), None
    while (took := time.monotonic() - started) < LATEST:
        with contextlib.suppress(UnavailableError):
            runs = count_runs()
            if before is not None and runs > before:
                return took
            before = runs if before is None else before
        time.sleep(0.2)
    return LATEST


def send_webhooks_now() -> None:
    """Make messages due that were refused or whose senders died: their next tries are minutes away, by wrong clocks an hour."""
    late = utc_now() + timedelta(seconds=SOON)
    is_late = or_(MESSAGE.c.next_at > late, MESSAGE.c.next_at < utc_now())
    with writing(RUNTIME.engine) as connection:
        connection.execute(
            update(MESSAGE).where(MESSAGE.c.state == PENDING, is_late).values(next_at=utc_now())
        )


def wait_for_quiet() -> float:
    """Answer what waits for people and events, until nothing is left to do; return the seconds that it took."""
    started = time.monotonic()
    while time.monotonic() - started < LATEST:
        try:
            for schedule in find_schedules(RUNTIME.engine):
                if schedule.paused_at is None:
                    pause(RUNTIME.engine, schedule)
            answer_all()
            ax.queues.resume_sync(SIDE, by="chaos")
            send_webhooks_now()
            if is_quiet():
                break
        except UnavailableError:
            pass
        time.sleep(0.5)
    return time.monotonic() - started


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


def show(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

"""A soak: steady work without faults. What grows from its middle to its end is a leak."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.chaos.checks import Evidence
from tests.chaos.driver import Report, wait_for_quiet
from tests.chaos.leftovers import find_leftovers
from tests.chaos.world import World

PAUSE = 5.0
"""Seconds between two samples."""

KEPT = timedelta(seconds=90)
"""Time after which tasks that have ended are pruned, so that their rows stay as many as they are."""

WITHOUT = ("poison", "audit")
"""Work that a soak leaves out: what kills processes would hide their growth, and agents are checked by rows that are pruned."""

GROWTH = 0.15
"""Part by which a figure may grow from the middle of a soak to its end: work comes at random."""

SLACK = {"memory (MB)": 4.0, "descriptors": 3.0, "threads": 3.0, "Redis memory (MB)": 2.0}
OTHER_SLACK = 60.0
"""Amount that may be added in any case."""


def soak(seed: int, seconds: float, target: str, *, rate: float, say: Callable[[str], None]) -> Report:
    """Run without faults, sample what the processes and servers hold, and return what has grown.

    Args:
        seed: Seed of the work.
        seconds: Length.
        target: `embedded`, `postgres` or `valkey+postgres`.
        rate: Operations that each of the producers starts per second.
        say: Prints a line about the progress.
    """
    report = Report(target, seed, seconds, Counter())
    samples: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        World(Path(folder), target, seed=seed, rate=rate, clock=0.0, without=WITHOUT) as world,
    ):
        while world.elapsed < seconds:
            time.sleep(PAUSE)
            prune(KEPT)
            samples.append(sample(world))
            if len(samples) % 12 == 0:
                say(f"{world.elapsed:6.0f} s  " + ", ".join(f"{k} {v:.0f}" for k, v in samples[-1].items()))
        world.heal()
        report.numbers["seconds until all was quiet"] = round(wait_for_quiet(), 1)
        world.stop()
        evidence = Evidence(world)
        report.numbers |= evidence.numbers()
        report.findings += find_leftovers(world)
    for name in sorted({name for each in samples for name, value in each.items() if value}):
        middle, end = (_level(samples, name, *part) for part in ((0.5, 0.65), (0.85, 1.0)))
        report.numbers[f"{name}, middle"], report.numbers[f"{name}, end"] = round(middle, 1), round(end, 1)
        if end > middle * (1 + GROWTH) + SLACK.get(name.partition(": ")[2], OTHER_SLACK):
            report.findings.append(f"{name} grows: {middle:.0f} in the middle, {end:.0f} at the end")
    return report


def prune(kept: timedelta) -> None:
    """Remove what ended some time ago."""
    with Session(RUNTIME.engine) as session:
        ax.activity.prune(session, kept)
        session.commit()


def sample(world: World) -> dict[str, float]:
    """Return what the processes of each role, the tables and Redis hold."""
    found: Counter[str] = Counter()
    for process in world.deployment.processes():
        try:
            role = _role_of(process)
            if role is None:
                continue
            with process.oneshot():
                found[f"{role}: memory (MB)"] += process.memory_info().rss / 1e6
                found[f"{role}: descriptors"] += process.num_fds()
                found[f"{role}: threads"] += process.num_threads()
        except psutil.Error:
            continue
    with Session(RUNTIME.engine) as session:
        for table in ax.Base.metadata.sorted_tables:
            if table.name.endswith("sent_event"):
                continue  # kept for months, as documented
            count: Any = session.scalar(select(func.count()).select_from(table))
            found[f"rows of {table.name.removeprefix(ax.CONF.table_prefix)}"] += count
    if world.redis is not None:
        with world.redis.client() as client:
            found["Redis keys"] += client.dbsize()
            found["Redis memory (MB)"] += client.info("memory")["used_memory"] / 1e6
            found["connections to Redis"] += client.info("clients")["connected_clients"]
    return dict(found)


def _role_of(process: psutil.Process) -> str | None:
    """Return the role of a process of a host; None for those of producers."""
    if "CHAOS_HOST" not in process.environ():
        return None
    above = [parent.pid for parent in process.parents()]
    depth = sum(1 for pid in above if _is_ours(pid))
    return {0: "supervisors", 1: "templates"}.get(depth, "workers")


def _is_ours(pid: int) -> bool:
    try:
        return "CHAOS_HOST" in psutil.Process(pid).environ()
    except psutil.Error:
        return False


def _level(samples: list[dict[str, float]], name: str, begin: float, end: float) -> float:
    part = samples[int(begin * len(samples)) : max(int(end * len(samples)), 1)] or samples[-1:]
    return statistics.median(each.get(name, 0.0) for each in part)

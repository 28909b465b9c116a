"""Command `python -m bench backends`: what each pair of queue and database costs, as one table.

One host with one worker process, idle and at work, and the latencies of lone tasks on it. Servers count what they do, and
processor time is that of all processes, since other work on the machine changes the times by the clock.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from bench import measures
from bench.figures import QUICK
from bench.hosts import HEADS, measure, unit_of
from bench.targets import NAMES, opened
from bench.workers import Workers

LATENCIES = {
    "pick-up after 50 ms of rest, from enqueue's return, p50": "pick-up, ms",
    "pick-up after 1.1 s of rest, from enqueue's return, p50": "pick-up at rest, ms",
    "get_result of a no-op task, p50": "result, ms",
}


def main(arguments: Sequence[str]) -> int:
    """Measure each target, and print a row of each."""
    parser = argparse.ArgumentParser(prog="bench backends", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seconds", type=float, default=10.0, help="time for which an idle host is watched")
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(arguments)
    rows: dict[str, dict[str, float]] = {}
    for name in options.targets:
        with opened(name) as target:
            with Workers(target, processes=1) as host:
                cells = measure(target, [host], options.seconds, options.tasks)
                rows[name] = {
                    head.format(unit=unit_of(name)): cell for head, cell in zip(HEADS, cells, strict=True)
                }
            for figure in (*measures.pick_up(target, QUICK), *measures.results(target, QUICK)):
                if head := LATENCIES.get(figure.name):
                    rows[name][head] = figure.value
        if not options.json:
            print(
                f"{name}: " + ", ".join(f"{head} {cell:,.4g}" for head, cell in rows[name].items()),
                flush=True,
            )
    if options.json:
        print(json.dumps(rows, indent=2))
    return 0

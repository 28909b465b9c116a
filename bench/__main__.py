"""Command `python -m bench`. Exits with 1 if a measurement failed; goals that are not met are only reported."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

from bench import (
    activities,
    agent_costs,
    api_times,
    approval_rules,
    backends,
    bloat,
    floors,
    growth,
    hosts,
    measures,
    report,
    startup,
    streams,
    targets,
    telemetry,
    workflows,
)
from bench.figures import QUICK, USUAL, Figure, Size
from bench.goals import compare
from bench.peers import compare as peers
from bench.targets import Target

IMPORTS = "imports"


def _journal(target: Target, size: Size) -> Iterator[Figure]:
    # Imported on use: importing the Agents SDK takes two seconds, which would distort the other measurements.
    return importlib.import_module("bench.journal").journal(target, size)


MEASURES: dict[str, Callable[[Target, Size], Iterator[Figure]]] = {
    "enqueue": measures.enqueue,
    "drain": measures.drain,
    "fairness": measures.fairness,
    "locks": measures.locks,
    "pick-up": measures.pick_up,
    "get-result": measures.results,
    "sleepers": measures.sleepers,
    "idle": measures.idle,
    "start": startup.start,
    "journal": _journal,
    "workflows": workflows.workflows,
    "telemetry": telemetry.telemetry,
}


def _timeline(arguments: Sequence[str]) -> int:
    # Imported on use: it imports the drivers.
    return importlib.import_module("bench.timeline").main(arguments)


def _long(arguments: Sequence[str]) -> int:
    # Imported on use: it imports the Agents SDK.
    return importlib.import_module("bench.long_runs").main(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "activities": activities.main,
    "agents": agent_costs.main,
    "api": api_times.main,
    "backends": backends.main,
    "bloat": bloat.main,
    "rules": approval_rules.main,
    "growth": growth.main,
    "hosts": hosts.main,
    "long": _long,
    "peers": peers.main,
    "streams": streams.main,
    "timeline": _timeline,
}
"""Measurements with arguments of their own."""


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    options = _parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # as an exception, which stops every server and worker
    logging.getLogger("agentexec").setLevel(logging.ERROR)
    facts = report.machine() | {"quick": options.quick}
    sections = _sections(options)
    show = report.as_json if options.json else report.as_text
    print(show(facts, sections))
    return 1 if any(section.failures for section in sections) else 0


def _sections(options: argparse.Namespace) -> list[report.Section]:
    """Take the chosen measurements: first the imports, which need no server, then those of each target."""
    size = dataclasses.replace(QUICK if options.quick else USUAL, full=options.full)
    sections: list[report.Section] = []
    known: dict[str, float] = {}
    if IMPORTS in options.only:
        sections.append(report.Section("imports and the command line", "", report.busy()))
        _measure(sections[-1], [(IMPORTS, startup.imports(size))], known, on_redis=False)
    names = [name for name in MEASURES if name in options.only]
    for target_name in options.targets if names else ():
        busy = report.busy()
        with targets.opened(target_name) as target:
            sections.append(report.Section(target_name, target.servers, busy))
            _measure(sections[-1], _work(target, names, size), dict(known), on_redis=bool(target.valkey))
    return sections


def _work(target: Target, names: Sequence[str], size: Size) -> Iterator[tuple[str, Iterator[Figure]]]:
    """Yield the floors and the measurements of a target, each with its name."""
    if target.redis_url:
        yield "floors", floors.redis_py(target.redis_url, size)
    if "enqueue" not in names:
        yield "floors", floors.sql(size)
    for name in names:
        yield name, MEASURES[name](target, size)


def _measure(
    section: report.Section,
    work: Iterable[tuple[str, Iterator[Figure]]],
    known: dict[str, float],
    *,
    on_redis: bool,
) -> None:
    """Take the measurements one by one and note their figures in `known`.

    A failure is noted too, and does not stop the other measurements.
    """
    for name, figures in work:
        try:
            for figure in figures:
                known[figure.name] = figure.value
                section.rows.append(compare(figure, known, on_redis=on_redis))
                print(f"{section.target}: {figure.name}: {figure.value:,.2f} {figure.unit}", file=sys.stderr)
        except Exception as error:
            text = f"{name}: {type(error).__name__}: {error}"
            section.failures.append(text)
            print(f"{section.target}: FAILED {text}", file=sys.stderr)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measure agentexec on real servers, each figure next to a floor measured in the same run.",
    )
    every = [IMPORTS, *MEASURES]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=every,
        default=every,
        metavar="NAME",
        help=f"measurements to take: {', '.join(every)}",
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=targets.NAMES,
        default=targets.USUAL,
        metavar="NAME",
        help=f"targets to measure: {', '.join(targets.NAMES)}; by default {', '.join(targets.USUAL)}",
    )
    parser.add_argument("--quick", action="store_true", help="smaller and less precise")
    parser.add_argument("--full", action="store_true", help="also run 10,000 tasks of 1 s at once")
    parser.add_argument("--json", action="store_true", help="print JSON with all samples")
    return parser.parse_args(arguments)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())

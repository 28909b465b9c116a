"""Command `python -m bench peers [--only NAME ...] [--quick]`: one row for each queue, all in one run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.peers import deployment
from bench.peers.catalog import PEERS, Peer
from bench.report import machine
from bench.targets import BenchError

PICK_UP, RESULT, ENQUEUE, BULK, DRAIN = "pick-up ms", "result ms", "enqueue/s", "bulk enqueue/s", "drain/s"
MEMORY, IDLE = "memory MB", "idle % CPU"
COLUMNS = (PICK_UP, RESULT, ENQUEUE, BULK, DRAIN, MEMORY, IDLE)

SETTLING = 2.0
"""Seconds after the last task from which on workers count as idle."""

WARMING = 0.2
"""Share of the tasks after which all worker processes count as started."""

Row = dict[str, float | None]


def main(arguments: Sequence[str]) -> int:
    """Measure, and print a table in Markdown, or JSON; 1 if a queue could not be measured."""
    parser = argparse.ArgumentParser(prog="bench peers", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[peer.name for peer in PEERS], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer tasks")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of which each number is the median")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    peers = [peer for peer in PEERS if options.only is None or peer.name in options.only]
    rows: dict[str, list[Row]] = {peer.name: [] for peer in peers}
    failures: dict[str, str] = {}
    facts = machine()
    for _ in range(options.rounds):
        for peer in peers:
            row: Row = dict.fromkeys(COLUMNS)
            try:
                measure(peer, row, quick=options.quick)
            except (BenchError, OSError) as error:
                failures[peer.name] = str(error)
            rows[peer.name].append(row)
    found = {name: _medians(measured) for name, measured in rows.items() if measured}
    show = _as_json if options.json else _as_table
    print(show(facts, found, {peer.name: peer.promise for peer in peers}))
    for name, error in failures.items():
        print(f"{name}: {error}", file=sys.stderr)
    return 1 if failures else 0


def measure(peer: Peer, row: Row, *, quick: bool) -> None:
    """Fill in the numbers of one queue: those before an error stay."""
    latencies, singles, many = (30, 300, 1_000) if quick else (100, 2_000, 5_000)
    with deployment.opened(peer) as queue:
        queue.ask("warm", 100)
        row[PICK_UP] = _median(queue.ask("pick_up", latencies)["ms"])
        row[RESULT] = _median(queue.ask("results", latencies)["ms"])
        row[MEMORY] = queue.memory()
        time.sleep(SETTLING)
        row[IDLE] = queue.idle(5.0)
        with queue.without_workers():
            row[ENQUEUE] = queue.ask("one_by_one", singles)["rate"]
        queue.ask("drained", singles)
        with queue.without_workers():
            row[BULK] = queue.ask("in_bulk", many)["rate"]
        drained = queue.ask("drained", many)
        # The first part does not count: some worker processes are still starting.
        counted = many - int(many * WARMING)
        row[DRAIN] = counted / ((drained["recorded"] or drained["last"]) - drained["warm"])


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def _medians(rows: list[Row]) -> Row:
    return {name: _median([row[name] for row in rows if row[name] is not None]) for name in COLUMNS}


def _as_json(facts: Any, found: dict[str, Row], promises: dict[str, str]) -> str:
    rows = {name: {**row, "promises": promises[name]} for name, row in found.items()}
    return json.dumps({"machine": facts, "rows": rows}, indent=2)


def _as_table(facts: Any, found: dict[str, Row], promises: dict[str, str]) -> str:
    lines = [
        f"{facts}",
        "",
        f"| | {' | '.join(COLUMNS)} | what it promises |",
        f"| --- | {' | '.join('---:' for _ in COLUMNS)} | --- |",
    ]
    for name, row in found.items():
        cells = [_cell(row[column]) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | {promises[name]} |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"

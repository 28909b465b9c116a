"""`./dev chaos`: a deployment under random faults, and what is wrong afterwards."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from tests.chaos.driver import run, show
from tests.chaos.plan import TARGETS, WITH_REDIS, draw_plan
from tests.chaos.soak import soak


def main(arguments: list[str] | None = None) -> int:
    """Run, print a report, and return the exit code: 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the faults")
    parser.add_argument("--seed", type=int, help="seed of the schedule; by default a new one")
    parser.add_argument("--target", choices=TARGETS, default=WITH_REDIS)
    parser.add_argument(
        "--rate", type=float, default=2.0, help="operations per second of each of two producers"
    )
    parser.add_argument("--keep", type=Path, help="folder for the files of the run, which stay")
    parser.add_argument(
        "--soak", action="store_true", help="no faults: fail if memory, keys, rows or descriptors grow"
    )
    parser.add_argument("--plan", action="store_true", help="print the schedule of faults and end")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    plan = draw_plan(seed, options.minutes * 60, options.target)
    if options.plan:
        for action in plan:
            show(str(action))
        return 0
    kind = "--soak " if options.soak else ""
    show(f"./dev chaos {kind}--target {options.target} --minutes {options.minutes:g} --seed {seed}")
    if options.soak:
        report = soak(seed, options.minutes * 60, options.target, rate=options.rate, say=show)
        show(str(report))
        return 1 if report.findings else 0
    if options.keep is not None:
        options.keep.mkdir(parents=True)
    report = run(
        seed,
        options.minutes * 60,
        options.target,
        rate=options.rate,
        plan=plan,
        say=show,
        folder=options.keep,
    )
    show(str(report))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())

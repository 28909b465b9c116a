"""The work of the comparison, the same on every system; imported in environments that have nothing of ours.

A task does four parts, one after the other, and writes a line after each: that is its effect.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

PARTS = 4
PART_SECONDS = 0.5
SLOTS = 8
"""Tasks that one host runs at once."""

NOTICE_SECONDS = 10
"""Seconds after which a dead worker must be noticed, where a system can be told so."""


def write(event: str, key: str, part: int = 0) -> None:
    """Write one line to the ledger. O_APPEND keeps lines of several processes whole."""
    line = {"event": event, "key": key, "part": part, "at": time.monotonic(), "pid": os.getpid()}
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{json.dumps(line)}\n".encode())
    os.close(file)


def do_part(key: str, part: int) -> None:
    """Do a part of a task in a thread."""
    time.sleep(PART_SECONDS)
    write("part", key, part)


def do_all(key: str) -> None:
    """Do a whole task."""
    write("start", key)
    for part in range(PARTS):
        do_part(key, part)
    write("end", key)


def produce(enqueue: Callable[[str], object]) -> None:
    """Enqueue as many tasks as the last two arguments of the program say, evenly over some seconds."""
    count, seconds = int(sys.argv[-2]), float(sys.argv[-1])
    started = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, started + number * seconds / count - time.monotonic()))
        enqueue(f"task-{number}")
        write("accepted", f"task-{number}")

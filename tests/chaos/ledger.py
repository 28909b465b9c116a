"""The ledger: a file of JSON lines that workers and producers append to, and that no fault reaches."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def write_line(**line: Any) -> None:
    """Write one line. O_APPEND keeps lines of several processes whole."""
    line = {"pid": os.getpid(), "at": round(time.monotonic(), 3), **line}
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{json.dumps(line)}\n".encode())
    os.close(file)


def read_ledger(file: Path) -> dict[str, list[Line]]:
    """Return the lines of each event, in order."""
    events: dict[str, list[Line]] = defaultdict(list)
    for text in file.read_text().splitlines():
        line = json.loads(text)
        events[line["event"]].append(line)
    return events

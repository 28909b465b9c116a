"""The `agentexec` command, also as `python -m agentexec`."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys

PROBES = (["worker", "--check"], ["worker", "--ready"])
OBJECTS = 200_000
"""New objects after which a command looks for garbage; one that starts makes up to 170,000, which stay."""


def main() -> None:
    """Entry point of the command."""
    if sys.argv[1:] in PROBES and (file := os.environ.get("AGENTEXEC_HEARTBEAT_FILE")):
        # Probes come every few seconds on each host: they are answered without what the command line loads, which
        # takes ten times as long. `agentexec worker` answers all other forms of them alike.
        importlib.import_module("agentexec.worker.probe").answer(file, ready="--ready" in sys.argv)
    if "worker" not in sys.argv[1:]:
        _start_fast()
    importlib.import_module("agentexec.cli.app").main()


def _start_fast() -> None:
    """For what ends soon; a worker runs for months, and its processes load what the application wants."""
    # No garbage is looked for among modules and classes, neither now nor at the end: that took a third of the time.
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)
    # Plugins watch an application's models; they are looked for in every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")


if __name__ == "__main__":
    main()

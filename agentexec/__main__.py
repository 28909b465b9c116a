"""The `agentexec` command, also as `python -m agentexec`."""

from __future__ import annotations

import atexit
import gc
import os
import sys

PROBES = (["worker", "--check"], ["worker", "--ready"])
GC_THRESHOLD = 200_000
"""New objects after which a command collects garbage; starting one creates up to 170,000, which stay."""


def main() -> None:
    """Run the command."""
    if sys.argv[1:] in PROBES and (file := os.environ.get("AGENTEXEC_HEARTBEAT_FILE")):
        # Probes run every few seconds on each host, so they are answered without loading the command line, which takes
        # ten times as long. `agentexec worker` answers all their other forms in the same way.
        from agentexec.worker.probe import answer

        answer(file, ready="--ready" in sys.argv)
    if "worker" not in sys.argv[1:]:
        _start_fast()
    from agentexec.cli import app

    app.main()


def _start_fast() -> None:
    """Skip what only long-lived processes need; a worker's processes load what the application needs."""
    # Collecting garbage among modules and classes, at the start and at the end, took a third of the time.
    gc.set_threshold(GC_THRESHOLD)
    atexit.register(gc.freeze)
    # Pydantic's plugins watch an application's models; it looks for them in every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")


if __name__ == "__main__":
    main()

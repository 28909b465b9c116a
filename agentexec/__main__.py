"""The `agentexec` command, also as `python -m agentexec`."""

from __future__ import annotations

import importlib
import os
import sys

PROBES = (["worker", "--check"], ["worker", "--ready"])


def main() -> None:
    """Entry point of the command."""
    if sys.argv[1:] in PROBES and (file := os.environ.get("AGENTEXEC_HEARTBEAT_FILE")):
        # Probes come every few seconds on each host: they are answered without what the command line loads, which
        # takes ten times as long. `agentexec worker` answers all other forms of them alike.
        importlib.import_module("agentexec.worker.health").answer(file, ready="--ready" in sys.argv)
    importlib.import_module("agentexec.cli.app").main()


if __name__ == "__main__":
    main()

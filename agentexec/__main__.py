"""The `agentexec` command, also as `python -m agentexec`."""

import atexit
import contextlib
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

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

    try:
        app.main()
    except SystemExit as end:
        runtime = sys.modules.get("agentexec.runtime")  # some commands do without it
        if runtime is not None and runtime.RUNTIME.only_reads_program:
            _exit_without_handlers(end.code)
        raise


def _start_fast() -> None:
    """Skip what only long-lived processes need; a worker's processes load what the application needs."""
    # Collecting garbage among modules and classes, at the start and at the end, took a third of the time.
    gc.set_threshold(GC_THRESHOLD)
    atexit.register(gc.freeze)
    # Pydantic's plugins watch an application's models; it looks for them in every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")


def _exit_without_handlers(code: object) -> "NoReturn":
    """Exit, but leave the exit handlers and the threads of the user's module alone: they belong to workers."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` puts the current folder first, where a json.py would replace that of the standard library.
        del sys.path[0]
    main()

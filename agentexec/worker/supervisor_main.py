"""Main program of the supervisor that `agentexec worker` starts.

The command line has read and checked the settings by then, and this program takes its place in the same process: what the
command line has loaded is most of what a supervisor would hold, and none of it is needed again.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from agentexec.errors import AgentexecError
from agentexec.redaction import redact
from agentexec.worker import logs
from agentexec.worker.host_settings import HostSettings
from agentexec.worker.installation import installed_release, own_module
from agentexec.worker.signal_queue import HANDLED_SIGNALS
from agentexec.worker.supervisor import Supervisor
from agentexec.worker.target import Target

log = logging.getLogger("agentexec.supervisor")

FAILED = 1
"""Exit code of an error that is not an AgentexecError."""


def become_supervisor(
    target: Target,
    settings: HostSettings,
    overrides: Mapping[str, str],
    *,
    news: list[str],
    warnings: list[str],
    show_traceback: bool,
) -> NoReturn:
    """Replace the program of this process by the supervisor.

    Args:
        target: Place of the user's pool.
        settings: Settings of the supervisor.
        overrides: Settings given by options, as the texts of their variables.
        news: Sentences to log when it starts.
        warnings: Warnings to log then.
        show_traceback: Print the traceback of an error.
    """
    start = {
        "target": target.to_dict(),
        "settings": settings.to_dict(),
        "overrides": dict(overrides),
        "news": news,
        "warnings": warnings,
        "show_traceback": show_traceback,
        "release": installed_release(),
    }
    # Everybody can read a command line, and this has the secrets that no log line may show.
    descriptor = _write(json.dumps(start).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    # They wait until the supervisor handles them.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    # The arguments are there for people who list processes, or `pkill -f "agentexec worker"`.
    shown = ["agentexec", *sys.argv[1:]]
    command = [*own_module("agentexec.worker.supervisor_main"), str(descriptor), *shown]
    os.execv(command[0], command)  # noqa: S606 - our own interpreter and module


def _write(content: bytes) -> int:
    """Return the descriptor of an open file without a name that has a content, for the next program of this process."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("agentexec-start")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    with open(descriptor, "wb", closefd=False) as opened:
        opened.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)
    return descriptor


def main(descriptor: int) -> NoReturn:
    """Run the supervisor; the descriptor is that of what `become_supervisor` has written."""
    with open(descriptor, "rb") as opened:
        start: dict[str, Any] = json.load(opened)
    settings = HostSettings.from_dict(start["settings"])
    logs.set_up("supervisor", settings)
    try:
        supervisor = Supervisor(
            Target.from_dict(start["target"]),
            settings,
            overrides=start["overrides"],
            show_traceback=start["show_traceback"],
            release=start["release"],
        )
        for sentence in start["news"]:
            log.info("%s", sentence)
        for sentence in start["warnings"]:
            log.warning("%s", sentence)
        code = supervisor.run()
    except Exception as error:
        if start["show_traceback"]:
            sys.stderr.write(redact(traceback.format_exc(), settings.secrets))
        ours = isinstance(error, AgentexecError)
        message = str(error) if ours else f"{type(error).__name__}: {error} (add --traceback to see where)"
        sys.stderr.write(f"agentexec: {redact(message, settings.secrets)}\n")
        code = error.exit_code if ours else FAILED
    sys.exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The machine that a worker runs on: which of its processes are gone, so that nobody waits for them.

A worker process is named `HOSTNAME:SUPERVISOR_PID:MACHINE.RUN.TIMEOUT:WORKER`, and everything before the last colon
names its host: one run of a supervisor. TIMEOUT is the `AGENTEXEC_HOST_TIMEOUT` of that host, by which all others judge it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple, Self

from agentexec.arguments.variables import MAX_HOST_TIMEOUT, MIN_HOST_TIMEOUT

MAX_NODE_NAME = 64
"""Characters of the machine's name in the name of a process, whose column holds 128."""

_TIMEOUT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Host(NamedTuple):
    """One run of a supervisor, as the names of its processes tell it."""

    name: str
    supervisor_pid: int
    machine: str
    timeout: float
    """Seconds without a sign of life after which this host counts as dead. Bounded: names come from the database."""

    @classmethod
    def of(cls, process_id: str) -> Self | None:
        """Return the host of a process, None for a name of another form, such as that of an earlier release."""
        name, _, _ = process_id.rpartition(":")
        parts = name.split(":")
        if len(parts) != 3 or not parts[1].isdecimal():
            return None
        machine, _, rest = parts[2].partition(".")
        timeout = rest.partition(".")[2]
        if not _TIMEOUT.fullmatch(timeout):
            return None
        bounded = min(max(float(timeout), MIN_HOST_TIMEOUT), MAX_HOST_TIMEOUT)
        return cls(name, int(parts[1]), machine, bounded)


def new_run_name() -> str:
    """Return a name for a run of the supervisor that calls this."""
    node = os.uname().nodename[:MAX_NODE_NAME]
    return f"{node}:{os.getpid()}:{_machine()}.{secrets.token_hex(3)}"


def new_process_name(run: str, timeout: float) -> str:
    """Return a name for a process of a supervisor's run, whose host has a timeout in seconds."""
    return f"{run}.{timeout:g}:{secrets.token_hex(5)}"


def _machine() -> str:
    """Return a name for the running machine and its space of process ids; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:8]


def is_gone(pid: int) -> bool:
    """Return True if no process of this machine has the pid, or if only its exit code is left."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in ("Z", "X")
    return False

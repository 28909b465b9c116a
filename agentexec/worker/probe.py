"""The probe: the supervisor rewrites a heartbeat file about every second, and `agentexec worker --check` reads it.

A file, because a probe must cost next to nothing and must not depend on Redis or the database: an outage of either
would else restart every worker. Only the supervisor's loop writes it, so that a loop that hangs is noticed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from agentexec.errors import SettingsError

log = logging.getLogger("agentexec.supervisor")

State = Literal["starting", "ready", "draining"]

BEAT_SECONDS = 1.0
STALE_SECONDS = 30.0
"""Age in seconds from which a heartbeat is stale: longer than any wait of the supervisor's loop (for a template that
keeps dying, or for the last processes at its end)."""

FAILING_SECONDS = 60.0
"""Seconds without a worker process that lasts, after which the probe fails."""

MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HeartbeatRecord:
    """One heartbeat. `time` is in seconds since the epoch, `failing_seconds` the time without a lasting worker process."""

    pid: int
    time: float
    state: State
    workers_alive: int
    workers_wanted: int
    failing_seconds: float = 0.0


class Verdict(NamedTuple):
    """Answer of a probe, and a sentence that gives the reason."""

    passes: bool
    text: str


class HeartbeatFile:
    """Writer of the heartbeat file, from the constructor to `close`. Without a file it does nothing.

    Threads: only the supervisor's loop writes.
    """

    def __init__(self, file: Path | None, workers_wanted: int) -> None:
        """Write the first heartbeat. Raises SettingsError if the file cannot be written: every probe would fail."""
        self._file = file
        self.workers_wanted = workers_wanted
        self._written: tuple[State, int] | None = None
        self._next = 0.0
        self._healthy_at = time.monotonic()
        self._broken = False
        if file is not None:
            try:
                self._write(file, HeartbeatRecord(os.getpid(), time.time(), "starting", 0, workers_wanted))
            except OSError as error:
                raise SettingsError(
                    f"Cannot write AGENTEXEC_HEARTBEAT_FILE {file} ({error.strerror})."
                ) from None

    def update(self, state: State, workers_alive: int, *, healthy: bool) -> None:
        """Write a heartbeat, at most once a second unless something has changed.

        `healthy` means that a worker process lasts, or that none is supposed to run.
        """
        if self._file is None:
            return
        now = time.monotonic()
        if healthy:
            self._healthy_at = now
        if now < self._next and self._written == (state, workers_alive):
            return
        self._next = now + BEAT_SECONDS
        self._written = (state, workers_alive)
        failing = round(now - self._healthy_at, 1)
        beat = HeartbeatRecord(os.getpid(), time.time(), state, workers_alive, self.workers_wanted, failing)
        try:
            self._write(self._file, beat)
        except OSError as error:
            # A full disk must not stop the work. The probe fails, which reports the problem.
            if not self._broken:
                log.error("Cannot write the heartbeat file %s (%s).", self._file, error.strerror)
            self._broken = True
        else:
            if self._broken:
                log.info("Writing the heartbeat file again.")
            self._broken = False

    def close(self) -> None:
        """Remove the file, unless another worker has taken it over."""
        if self._file is None:
            return
        with contextlib.suppress(OSError, ValueError):
            if read(self._file).pid == os.getpid():
                self._file.unlink()

    def _write(self, file: Path, beat: HeartbeatRecord) -> None:
        # The file is replaced as a whole, so a reader never sees half of it.
        draft = file.with_name(f".{file.name}.{beat.pid}")
        try:
            # Links are not followed: in a folder like /tmp somebody else may have put one there.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(draft, flags, 0o644), "w", encoding="utf-8") as opened:
                opened.write(json.dumps(asdict(beat)) + "\n")
            draft.replace(file)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


def read(file: Path) -> HeartbeatRecord:
    """Read the heartbeat of a file. Raises OSError, or ValueError for a file without a heartbeat."""
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES)
    try:
        beat = HeartbeatRecord(**json.loads(content))
        numbers = (beat.time, beat.failing_seconds, beat.workers_alive, beat.workers_wanted, beat.pid)
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("a number is missing")
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return beat


def answer(file: str | Path | None, *, ready: bool) -> NoReturn:
    """Answer a probe with one sentence, and exit with 0 or 1, the only codes that Docker knows."""
    verdict = (
        check(Path(file), ready=ready)
        if file
        else Verdict(
            False,
            "No heartbeat file is set. Set AGENTEXEC_HEARTBEAT_FILE, for the worker and for this command.",
        )
    )
    stream = sys.stdout if verdict.passes else sys.stderr
    stream.write(verdict.text + "\n" if verdict.passes else f"agentexec: {verdict.text}\n")
    sys.exit(0 if verdict.passes else 1)


def check(file: Path, *, ready: bool = False) -> Verdict:
    """Check that the worker that writes a file is alive or, with `ready`, that it takes tasks."""
    try:
        beat = read(file)
    except FileNotFoundError:
        return Verdict(False, f"There is no heartbeat file {file}: no running worker writes it there.")
    except OSError as error:
        return Verdict(False, f"Cannot read the heartbeat file {file} ({error.strerror}).")
    except ValueError:
        return Verdict(False, f"The file {file} does not contain the heartbeat of a worker.")
    return judge(beat, time.time(), ready=ready)


def judge(beat: HeartbeatRecord, now: float, *, ready: bool) -> Verdict:
    """Judge a heartbeat at the time `now`. A worker that starts or drains is alive, but not ready."""
    # A heartbeat from the future is not a sign of life either: the clock was set back, and nobody has written since.
    age = abs(now - beat.time)
    who = f"The worker (process {beat.pid})"
    if age > STALE_SECONDS:
        return Verdict(False, f"{who} has not written a heartbeat for {age:.0f} s: it hangs, or it is gone.")
    if beat.failing_seconds > FAILING_SECONDS:
        return Verdict(
            False,
            f"{who} has had no lasting worker process for {beat.failing_seconds:.0f} s. See its log for the reason.",
        )
    running = f"{beat.workers_alive} of {beat.workers_wanted} worker processes run"
    if ready and not (beat.state == "ready" and beat.workers_alive):
        return Verdict(False, f"{who} is not ready: it is {beat.state}, and {running}.")
    return Verdict(True, f"{who} is {beat.state}: {running}.")

"""The supervisor: starts worker processes, watches them, replaces dead ones, and stops them in order.

Small on purpose: it imports neither the user's module nor anything that can hang on a database. Signal handlers
only note the signal; one loop acts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import psutil

from agentexec.config import Settings
from agentexec.policy import exit_reason, restart_delay
from agentexec.worker.channel import Channel
from agentexec.worker.launch import launch
from agentexec.worker.probe import HeartbeatFile
from agentexec.worker.target import Target

log = logging.getLogger("agentexec.supervisor")

YOUNG_SECONDS = 5.0
"""A process that dies younger counts as dying at its start, which slows its replacement down."""

KILL_AFTER = 10.0
"""Seconds beyond the graceful time-out (or after a second signal) until what is left is killed."""

TICK = 1.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class Process:
    """A worker process (or the maintenance process) in its slot."""

    name: str
    role: str
    id: str = ""
    process: psutil.Process | None = None
    started: float = 0.0
    quick_deaths: int = 0
    start_at: float = 0.0
    asked: bool = False
    reason: str | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None


@dataclass
class Supervisor:
    """Runs a pool's processes until stopped; `run` returns the exit code of the documented table."""

    target: Target
    settings: Settings
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings that were made in code or by options: they hold in the processes that load the settings anew too,
    whatever the user's module sets."""
    run_atexit: bool = True
    show_traceback: bool = False

    def __post_init__(self) -> None:
        self._host = f"{os.uname().nodename}:{os.getpid()}"
        self._signals: deque[int] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self.settings = self.settings.model_copy()
        self._slots = [Process("maintenance", "maintenance")]
        self._unsettled: dict[str, str] = {}
        self._template: subprocess.Popen[bytes] | None = None
        self._loaded = False
        self._ready = False
        self._failed: int | None = None
        self._gave_up: int | None = None
        self._stopping_at: float | None = None
        self._forced = False
        self._template_deaths = 0
        self.stopped_by: int | None = None
        self.ready = threading.Event()
        self._heartbeat = HeartbeatFile(self.settings.heartbeat_file, self.settings.num_workers)

    def run(self, *, handle_signals: bool = True) -> int:
        """Start everything and work until a signal or `stop`. 0 clean, 1 forced or crashed, else a start's failure."""
        before = self._take_signals() if handle_signals else {}
        try:
            self._start_template()
            while not self._done():
                self._wait()
                self._handle_signals()
                self._watch()
                self._enforce_deadline()
                self._beat()
            return self._close()
        finally:
            self._kill_all()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._heartbeat.close()
            self.ready.set()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """As the signal would; from any thread, or a signal handler."""
        self._signals.append(number)
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    # ---- signals -----------------------------------------------------------------------------------------

    def _take_signals(self) -> dict[int, Any]:
        return {
            number: signal.signal(number, lambda received, _frame: self.stop(received))
            for number in (*STOP_SIGNALS, signal.SIGQUIT)
        }

    def _handle_signals(self) -> None:
        while self._signals:
            number = self._signals.popleft()
            if self._stopping_at is None and number != signal.SIGQUIT:
                self.stopped_by = number
                self._drain()
            else:
                self._force()

    def _drain(self) -> None:
        self._stopping_at = time.monotonic() + self.settings.graceful_shutdown_timeout + KILL_AFTER
        log.info("Stopping: no more tasks are claimed; a second signal hurries.")
        self._signal_workers(signal.SIGTERM)

    def _force(self) -> None:
        self.stopped_by = self.stopped_by or signal.SIGQUIT
        if self._stopping_at is None or not self._forced:
            log.warning("Forced: running tasks are handed back.")
            self._forced = True
            self._stopping_at = time.monotonic() + KILL_AFTER
            self._signal_workers(signal.SIGQUIT)
        else:
            self._stopping_at = time.monotonic()

    def _signal_workers(self, number: int) -> None:
        for slot in self._workers():
            if slot.process is not None:
                with contextlib.suppress(psutil.Error):
                    slot.process.send_signal(number)

    def _enforce_deadline(self) -> None:
        if self._stopping_at is None:
            return
        if time.monotonic() < self._stopping_at:
            # Said again: a process that was just forked may not have listened yet.
            self._signal_workers(signal.SIGQUIT if self._forced else signal.SIGTERM)
            return
        for slot in self._workers():
            if slot.process is not None and slot.reason is None:
                log.error("%s did not stop in time and is killed; its tasks go back to the queue.", slot.name)
                self._forced = True
                slot.reason = "was killed because it did not stop in time"
                with contextlib.suppress(psutil.Error):
                    slot.process.kill()

    # ---- processes ---------------------------------------------------------------------------------------

    def _start_template(self) -> None:
        launched = launch(
            self.target, self.overrides, run_atexit=self.run_atexit, show_traceback=self.show_traceback
        )
        self._template, self._control, self._to_maintenance, self._alive_write = launched
        self._selector = selectors.DefaultSelector()
        for readable in (self._control, self._to_maintenance, self._wake_read):
            self._selector.register(readable, selectors.EVENT_READ)

    def _workers(self) -> list[Process]:
        return self._slots[1:]

    def _wait(self, most: float = TICK) -> None:
        # Only what may be started ends the wait: for what waits for another event, this loop would turn without rest.
        now = time.monotonic()
        due = [slot.start_at - now for slot in self._slots if self._wanted(slot)]
        for key, _ in self._selector.select(max(0.0, min([most, *due]))):
            if isinstance(key.fileobj, Channel):
                self._listen(key.fileobj)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(65536)

    def _listen(self, channel: Channel) -> None:
        messages = channel.read()
        if messages is None:
            self._selector.unregister(channel)
            if channel is self._control and self._template is not None:
                # It is about to end, which nothing else would tell before the next tick.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._template.wait(TICK)
            return
        for message in messages:
            try:
                self._hear(message)
            except (KeyError, TypeError, ValueError):
                channel.warn_once()

    def _hear(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            log.error("%s", message["failed"])
            self._fail(message["exit_code"])
        elif "loaded" in message:
            self._loaded = True
            self._adopt(message["settings"])
            if not message["forks"]:
                log.info(
                    "The module has started threads, so each worker loads it by itself (slower, more memory)."
                )
        elif "ready" in message:
            if not self._ready:
                log.info(
                    "%d worker(s) with %d task(s) each on queue %s.",
                    len(self._workers()),
                    self.settings.worker_concurrency,
                    self.settings.queue_name,
                )
            self._ready = True
            self._tell_deaths()
        elif "forked" in message:
            self._note_start(message["forked"], message["pid"])
        elif "exited" in message:
            self._note_end(message["exited"], message["code"])
        elif "settled" in message:
            self._unsettled.pop(message["settled"], None)

    def _fail(self, code: int) -> None:
        """Nothing more is to be started: end, after the running tasks if there are any."""
        if not self._ready:
            self._failed = code
            return
        self._gave_up = code
        if self._stopping_at is None:
            self._drain()

    def _adopt(self, settings: dict[str, Any]) -> None:
        """Take over what the user's module has set, which this process does not import."""
        for name, value in settings.items():
            setattr(self.settings, name, value)
        number = self._heartbeat.workers_wanted = self.settings.num_workers
        del self._slots[number + 1 :]
        self._slots += [Process(f"worker-{place}", "worker") for place in range(len(self._slots), number + 1)]

    def _note_start(self, process_id: str, pid: int) -> None:
        for slot in self._slots:
            if slot.id == process_id:
                try:
                    slot.process = psutil.Process(pid)
                except psutil.NoSuchProcess:
                    # Already gone; the template's "exited" is on its way and needs the pid to be known.
                    slot.process = None
                    slot.reason = "died at its start"
                slot.started = time.monotonic()
                if slot.process is None:
                    self._replace(slot, 1)
                elif self._stopping_at is not None and slot.role == "worker":
                    slot.process.send_signal(signal.SIGTERM)

    def _note_end(self, pid: int, code: int) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.pid == pid:
                self._replace(slot, code)

    def _replace(self, slot: Process, code: int) -> None:
        """A process has ended: report its death, and have the next one started, later if it dies too often."""
        if slot.role == "maintenance" and self._to_maintenance in self._selector.get_map():
            # Its last words may say why, and that no other would fare better.
            self._listen(self._to_maintenance)
        reason = slot.reason or exit_reason(code)
        slot.process, slot.asked, slot.reason = None, False, None
        if slot.role == "worker" and code != 0:
            self._unsettled[slot.id] = reason
            self._tell_deaths()
        if self._stopping_at is not None or self._failed is not None:
            return
        young = time.monotonic() - slot.started < YOUNG_SECONDS
        slot.quick_deaths = slot.quick_deaths + 1 if young else 0
        delay = restart_delay(slot.quick_deaths)
        slot.start_at = time.monotonic() + delay
        log.log(
            logging.INFO if code == 0 else logging.ERROR,
            "%s %s; it is replaced%s.",
            slot.name,
            reason,
            f" in {delay:.1f} s" if delay else "",
        )

    def _tell_deaths(self) -> None:
        for worker_id, reason in self._unsettled.items():
            self._to_maintenance.send({"dead": worker_id, "reason": reason})

    def _watch(self) -> None:
        """Start what is missing; notice a dead template."""
        if self._failed is not None:
            return
        if self._template is not None and self._template.poll() is not None:
            self._wait(0.0)  # for its last words, which may say why
            if self._failed is None:
                self._template_died(self._template.returncode)
            return
        for slot in self._slots:
            if self._wanted(slot) and time.monotonic() >= slot.start_at:
                slot.id = f"{self._host}:{secrets.token_hex(5)}"
                slot.asked = True
                order = {"role": slot.role, "id": slot.id, "name": slot.name}
                if self._ready:
                    order["again"] = "yes"
                self._control.send({"fork": order})

    def _wanted(self, slot: Process) -> bool:
        """True if this process is missing and may be started, now or when its time has come."""
        if not self._loaded or slot.alive or slot.asked:
            return False
        if slot.role == "maintenance":
            return self._gave_up is None
        return self._ready and self._stopping_at is None

    def _template_died(self, code: int) -> None:
        if not self._loaded and self._template_deaths == 0:
            log.error(
                "The template process %s before it had loaded %s.", exit_reason(code), self.target.module
            )
            self._failed = 1
            return
        self._template_deaths += 1
        log.error("The template process %s; all processes are started anew.", exit_reason(code))
        os.close(self._alive_write)
        for slot in self._slots:
            if slot.process is not None:
                # It dies with the template, by the kernel's hand or by ours; then its tasks can be given back.
                with contextlib.suppress(psutil.Error):
                    slot.process.kill()
                    slot.process.wait(5)
                slot.reason = f"died with the template process, which {exit_reason(code)}"
                self._replace(slot, -signal.SIGKILL)
            slot.asked = False
        self._selector.close()
        self._control.close()
        self._to_maintenance.close()
        self._loaded = False
        if self._stopping_at is not None:
            self._failed = 1
            return
        time.sleep(restart_delay(self._template_deaths))
        self._start_template()

    def _beat(self) -> None:
        running = [slot for slot in self._workers() if slot.alive]
        stopping = self._stopping_at is not None
        state = "draining" if stopping else "ready" if self._ready and self._loaded else "starting"
        lasting = any(time.monotonic() - slot.started >= YOUNG_SECONDS for slot in running)
        self._heartbeat.update(state, len(running), healthy=lasting or stopping or not self._ready)

    # ---- stop --------------------------------------------------------------------------------------------

    def _done(self) -> bool:
        if self._failed is not None:
            return True
        if self._stopping_at is None or any(slot.alive or slot.asked for slot in self._workers()):
            return False
        # What dead workers held is given back before the maintenance process goes.
        return (
            not self._unsettled
            or not self._slots[0].alive
            or time.monotonic() > self._stopping_at + KILL_AFTER
        )

    def _close(self) -> int:
        self._to_maintenance.send({"stop": True})
        maintenance = self._slots[0].process
        if maintenance is not None:
            with contextlib.suppress(psutil.Error):
                maintenance.wait(5)
        self._control.send({"stop": True})
        if self._template is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._template.wait(10 if self.run_atexit else 2)
        if self._failed is not None:
            return self._failed
        log.info("Stopped.")
        return self._gave_up or int(self._forced)

    def _kill_all(self) -> None:
        """Whatever happened, no process is left behind."""
        for slot in self._slots:
            if slot.process is not None:
                with contextlib.suppress(psutil.Error):
                    slot.process.kill()
        if self._template is not None:
            if self._template.poll() is None:
                self._template.kill()
            self._template.wait()
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._alive_write)

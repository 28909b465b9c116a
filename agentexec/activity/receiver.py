"""Thread that receives the messages of one mailbox and checks the record in between."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from agentexec.errors import UnavailableError
from agentexec.outage import Outage
from agentexec.runtime import Runtime

CHECK_SECONDS = 5.0
"""Seconds between two checks of the record: messages may be lost with the state backend, the record is not."""


def new_address(suffix: str = "") -> str:
    """Return a mailbox address that no other process uses."""
    return f"{os.getpid()}-{secrets.token_hex(6)}{suffix}"


class Receiver:
    """Thread that receives the messages of one mailbox and checks the record in between.

    Args:
        runtime: Runtime whose state backend holds the mailbox.
        address: Address of the mailbox.
        name: Name of the thread.
        log: Logger for outages and unexpected errors.
        consequence: Completes the log line of an outage: what does not work until the server is back.
        recovered: Log line for the end of an outage.
        handle: Called with the messages received.
        check: Called every `CHECK_SECONDS`, and first thing after an outage.
        check_record: Called after each failed try; needs the database only.
    """

    def __init__(
        self,
        runtime: Runtime,
        address: str,
        *,
        name: str,
        log: logging.Logger,
        consequence: str,
        recovered: str,
        handle: Callable[[Sequence[str]], object],
        check: Callable[[], object],
        check_record: Callable[[], object],
    ) -> None:
        self.address = address
        self._runtime = runtime
        self._name = name
        self._log = log
        self._consequence = consequence
        self._outage = Outage(log, recovered=recovered)
        self._handle = handle
        self._check = check
        self._check_record = check_record
        self._next_check = 0.0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Start the thread unless it was started before."""
        with self._lock:
            if self._thread is None:
                self._next_check = time.monotonic() + CHECK_SECONDS
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread after its current turn."""
        self._closed = True

    def join(self, timeout: float) -> None:
        """Wake the thread after `close`, and wait up to `timeout` seconds for its end."""
        if self._thread is not None:
            self._runtime.backend.send(self.address, ["closed"])
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._turn()
                self._outage.recovered()
            except UnavailableError as error:
                if self._closed:
                    return
                time.sleep(self._outage.failed("%s %s", error, self._consequence))
                self._next_check = 0.0
                self._check_record_quietly()
            except Exception:
                time.sleep(self._outage.failed_unexpectedly("A message could not be handled; trying again."))

    def _turn(self) -> None:
        # By the clock, not by silence: under a steady stream of messages, a lost one would never be made up for.
        self._handle(
            self._runtime.backend.receive(self.address, max(0.0, self._next_check - time.monotonic()))
        )
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + CHECK_SECONDS
            self._check()

    def _check_record_quietly(self) -> None:
        try:
            self._check_record()
        except UnavailableError:
            self._log.debug("The record cannot be read either.")

"""The maintenance process of a host: preflight, the tasks of dead workers, the reconciler.

A process of its own, so that the supervisor stays small and needs no database, while this one has the user's
own engine.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from typing import Any

from agentexec.config import Settings
from agentexec.errors import AgentexecError, UnavailableError
from agentexec.outage import backoff
from agentexec.runtime import Runtime
from agentexec.worker.control import Channel
from agentexec.worker.preflight import preflight
from agentexec.worker.reconciler import Reconciler

log = logging.getLogger("agentexec.maintenance")

TURN_SECONDS = 1.0


class Maintenance:
    """Hears of deaths from the supervisor over a socket, one JSON object a line, and answers when they are settled.

    `connect_timeout`: seconds to wait for the servers at the start, without end where workers serve already.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        owner: str,
        supervisor: socket.socket,
        *,
        connect_timeout: float,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._supervisor = Channel(supervisor)
        self._connect_timeout = connect_timeout
        self._reconciler = Reconciler(runtime, settings, owner)
        self._deaths: dict[str, str] = {}
        self._stop = threading.Event()

    def run(self) -> int:
        """Work until stopped; returns the exit code."""
        try:
            preflight(self._runtime, self._settings, self._connect_timeout)
        except AgentexecError as error:
            self._tell({"failed": str(error), "exit_code": error.exit_code})
            return error.exit_code
        except Exception as error:
            log.exception("The checks before the start failed.")
            self._tell({"failed": f"The checks before the start failed: {error}", "exit_code": 1})
            return 1
        self._tell({"ready": True})
        failures = 0
        next_turn = 0.0
        while not (self._stop.is_set() and not self._deaths):
            self._listen(max(0.0, min(TURN_SECONDS, next_turn - time.monotonic())))
            try:
                self._recover_dead()
                if time.monotonic() >= next_turn and not self._stop.is_set():
                    self._reconciler.run_once()
                    next_turn = time.monotonic() + TURN_SECONDS
                if failures:
                    log.info("Maintenance goes on.")
                failures = 0
            except UnavailableError as error:
                failures += 1
                if failures == 1:
                    log.error("%s Maintenance waits for it.", error)
                next_turn = time.monotonic() + backoff(failures)
                if self._stop.is_set():
                    break
            except Exception:
                failures += 1
                log.exception("A turn of the maintenance failed.")
                next_turn = time.monotonic() + backoff(failures)
        try:
            self._reconciler.resign()
        except UnavailableError:
            log.debug("The leadership runs out by itself.")
        return 0

    def stop(self) -> None:
        """End after the deaths that were reported are settled."""
        self._stop.set()

    def _listen(self, timeout: float) -> None:
        ready, _, _ = select.select([self._supervisor], [], [], timeout)
        if not ready:
            return
        messages = self._supervisor.read()
        if messages is None:
            # The supervisor is gone; what it would have told, the leases tell when they run out.
            self._stop.set()
            return
        for message in messages:
            if "dead" in message:
                self._deaths[str(message["dead"])] = str(message.get("reason", "died"))
            if message.get("stop"):
                self._stop.set()

    def _recover_dead(self) -> None:
        for worker_id, reason in list(self._deaths.items()):
            self._reconciler.recover(worker_id, reason)
            del self._deaths[worker_id]
            self._tell({"settled": worker_id})

    def _tell(self, message: dict[str, Any]) -> None:
        if not self._supervisor.send(message):
            self._stop.set()

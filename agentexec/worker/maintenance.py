"""The maintenance process of a host: the checks before the start, the tasks of dead workers, and the reconciler.

It is a process of its own, so that the supervisor stays small and needs no database, while this one has the user's
engine.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from typing import Any
from uuid import UUID

from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, UnavailableError
from agentexec.outage import Outage
from agentexec.registry import Registry
from agentexec.runtime import Runtime
from agentexec.worker.approval_notices import ApprovalNotices
from agentexec.worker.channel import Channel
from agentexec.worker.due import Due, DueQuery
from agentexec.worker.failed_start import to_message
from agentexec.worker.follow_ups import FollowUps
from agentexec.worker.host_watch import HostWatch
from agentexec.worker.option_watch import OptionWatch
from agentexec.worker.preflight import preflight
from agentexec.worker.reconciler import Reconciler, do_all
from agentexec.worker.reports import Reporter
from agentexec.worker.sandbox_sweep import SandboxSweep
from agentexec.worker.scheduler import Scheduler
from agentexec.worker.server_watch import ServerWatch
from agentexec.worker.webhook_sender import WebhookSender

log = logging.getLogger("agentexec.maintenance")

TURN_SECONDS = 1.0
"""Seconds between two turns of the reconciler."""


class Maintenance:
    """Recovers the tasks of dead worker processes, which the supervisor reports, and runs the reconciler.

    Threads: the main thread does the work; any other may call `stop`.

    Args:
        supervisor: Socket to the supervisor. It carries one JSON object a line: `dead`, `former_queues` and `stop` come in, `ready`,
            `failed`, `reconciled` and `settled` go out.
        connect_timeout: Seconds to wait for the servers at the start; infinite where workers already serve.
        registry: The pool's tasks and schedules.
        reports: File descriptor to which this process reports about the servers, -1 for none.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        owner: str,
        supervisor: socket.socket,
        *,
        connect_timeout: float,
        registry: Registry | None = None,
        reports: int = -1,
    ) -> None:
        self._runtime = runtime
        self._registry = registry or Registry()
        self._settings = settings
        self._supervisor = Channel(supervisor)
        self._connect_timeout = connect_timeout
        self._servers = ServerWatch(runtime, settings) if reports >= 0 else None
        self._reporter = Reporter(
            reports, owner, lambda: self._servers.state() if self._servers else {}, runtime.meter
        )
        self._owner = owner
        self._deaths: dict[str, tuple[str, UUID | None]] = {}
        self._queues = [queue.name for queue in settings.served_queues]
        """Queues whose dead workers and ended tasks this process looks after: those served, and those that former code served."""
        self._next_turn = 0.0
        self._has_reconciled = False
        self._outage = Outage(log, recovered="Maintenance resumed.", level=logging.ERROR)
        self._stop = threading.Event()

    def run(self) -> int:
        """Work until stopped, and return the exit code."""
        if code := self._check():
            return code
        self._reconciler = Reconciler(self._runtime, self._settings, self._owner)
        self._hosts = HostWatch(self._runtime, self._settings, self._owner, self._reconciler.recover)
        self._recover_from_predecessor()
        self._tell({"ready": True})
        self._hosts.start()
        scheduler = Scheduler(self._runtime.engine, self._registry, self._settings.queue_name)
        scheduler.start()
        self._webhooks = webhooks = WebhookSender(self._runtime.engine, self._settings)
        webhooks.start()
        if self._servers is not None:
            self._servers.start()
            self._reporter.start()
        self._sandboxes = SandboxSweep(self._runtime.engine)
        self._find_duties()
        self._options = OptionWatch(self._runtime.engine, self._registry)
        while not (self._stop.is_set() and not self._deaths):
            self._listen(max(0.0, min(TURN_SECONDS, self._next_turn - time.monotonic())))
            try:
                self._work()
            except UnavailableError as error:
                self._next_turn = time.monotonic() + self._outage.failed(
                    "%s Maintenance waits for it.", error
                )
                if self._stop.is_set():
                    break
            except Exception:
                wait = self._outage.failed_unexpectedly("Maintenance failed; trying again.")
                self._next_turn = time.monotonic() + wait
        scheduler.stop()
        webhooks.stop()
        if self._servers is not None:
            self._servers.stop()
            self._reporter.stop()
        self._sandboxes.run()
        try:
            self._hosts.stop()
            self._reconciler.resign()
        except UnavailableError:
            log.debug("The leadership expires by itself.")
        return 0

    def stop(self) -> None:
        """End after the reported deaths are settled; from any thread."""
        self._stop.set()

    def _check(self) -> int:
        """Run the preflight, report its failure, and return the exit code: 0 if all is well."""
        try:
            preflight(self._runtime, self._settings, self._connect_timeout)
        except AgentexecError as error:
            self._tell(to_message(error))
            return error.exit_code
        except Exception as error:
            log.exception("The checks before the start failed.")
            self._tell(to_message(AgentexecError(f"The checks before the start failed: {error}")))
            return 1
        return 0

    def _recover_from_predecessor(self) -> None:
        """Give back the tasks of a supervisor that was killed on this machine, before the first task is claimed."""
        try:
            self._hosts.look(time.monotonic())
        except UnavailableError as error:
            log.debug("%s The other hosts are looked at later.", error)
        except Exception:
            log.exception("Cannot look for workers that were killed here; trying again.")

    def _work(self) -> None:
        self._recover_dead()
        if time.monotonic() >= self._next_turn and not self._stop.is_set():
            due = self._due.look(utc_now())
            # The queue that is away may be one of several.
            do_all(lambda: self._reconciler.run_once(due), lambda: self._serve(due), despite_outages=True)
            self._next_turn = time.monotonic() + TURN_SECONDS
            self._outage.recovered()
            if not self._has_reconciled:
                self._has_reconciled = True
                self._tell({"reconciled": True})

    def _serve(self, due: Due) -> None:
        """Do what is due besides the repair of the queues."""
        # Each host does this, not only the leader's: nobody else can.
        self._sandboxes.run_if_due(time.monotonic())
        if due.follow_ups:
            self._follow_ups.run_once()
        if due.notices:
            self._notices.run_once()
        if due.webhooks or due.follow_ups or due.notices:
            self._webhooks.tell()
        self._options.run_if_due(time.monotonic())

    def _listen(self, timeout: float) -> None:
        ready, _, _ = select.select([self._supervisor], [], [], timeout)
        if not ready:
            return
        messages = self._supervisor.read()
        if messages is None:
            # The supervisor is gone. The deaths that it does not report any more show in leases that expire.
            self._stop.set()
            return
        for message in messages:
            if "former_queues" in message:
                self._look_after(message["former_queues"])
            if "dead" in message:
                culprit = UUID(message["culprit"]) if "culprit" in message else None
                self._deaths[str(message["dead"])] = str(message.get("reason", "died")), culprit
            if message.get("stop"):
                self._stop.set()

    def _look_after(self, queues: list[str]) -> None:
        self._queues.extend(queue for queue in queues if queue not in self._queues)
        self._find_duties()

    def _find_duties(self) -> None:
        """Prepare for what is due on the queues that this process looks after."""
        engine = self._runtime.engine
        self._follow_ups = FollowUps(engine, self._registry, *self._queues)
        self._notices = ApprovalNotices(engine, self._registry, *self._queues)
        indexed = () if self._runtime.backend.transactional else self._queues
        self._due = DueQuery(engine, self._follow_ups, self._notices, indexed)

    def _recover_dead(self) -> None:
        for worker_id, (reason, culprit) in list(self._deaths.items()):
            self._reconciler.recover(worker_id, reason, self._queues, culprit=culprit)
            del self._deaths[worker_id]
            self._tell({"settled": worker_id})

    def _tell(self, message: dict[str, Any]) -> None:
        if not self._supervisor.send(message):
            self._stop.set()

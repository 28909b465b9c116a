"""Main program of a worker or maintenance process, from the fork to the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from agentexec.config import CONF
from agentexec.errors import AgentexecError
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.telemetry.meter import Meter
from agentexec.worker import logs
from agentexec.worker.event_loop import MainTask, run_to_end
from agentexec.worker.forks import Forks, ignore_signals, terminate_children
from agentexec.worker.reports import Reporter
from agentexec.worker.scoreboard import Scoreboard
from agentexec.worker.turnover import Turnover

log = logging.getLogger("agentexec.worker")

ORPHAN_SECONDS = 3.0
"""Seconds that a process gets to hand its tasks back when the supervisor is gone."""

FLUSH_SECONDS = 3.0
"""Seconds that a process gets to export its last traces."""

WORKER_MODULE, MAINTENANCE_MODULE = "agentexec.worker.worker_process", "agentexec.worker.maintenance"
"""Modules that are imported after the user's module, which may set the prefix of the names of their tables."""

PROVIDERS_MODULE = "agentexec.telemetry.providers"
"""Module that is imported only if OpenTelemetry is on."""

MAINTENANCE_ROLE = "maintenance"

PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when its parent dies."""


def run_child(
    request: dict[str, Any],
    registry: Registry,
    alive: int,
    maintenance: socket.socket,
    forks: Forks,
    reports: int,
    board: Scoreboard,
) -> NoReturn:
    """Run a worker or the maintenance process, then exit without the exit handlers inherited from the template.

    Args:
        request: The supervisor's: `role`, `id` and `name`, `again` if workers ran before, and of a worker `cell`, its
            place on the scoreboard, and `after`, the places and numbers of starts of those that it replaces.
        registry: The pool's tasks.
        alive: File descriptor of a pipe that closes when the supervisor is gone.
        maintenance: Socket between the supervisor and the maintenance process.
        forks: The forks of the template, which goes on to see those of this process.
        reports: File descriptor to which this process reports, -1 for none.
        board: The supervisor's scoreboard.
    """
    code = 1
    try:
        _die_with_parent()
        RUNTIME.forget_connections()
        if reports >= 0 and CONF.metrics_port is not None:
            RUNTIME.meter = Meter()
        if RUNTIME.tracing is not None:
            _set_up_providers(request["id"])
        logs.set_up(request["name"], CONF, handles_tasks=request["role"] != MAINTENANCE_ROLE)
        if request["role"] == MAINTENANCE_ROLE:
            code = _run_maintenance(request, registry, alive, maintenance, reports)
        else:
            maintenance.close()
            code = _run_worker(request, alive, registry, forks, reports, board)
    except AgentexecError as error:
        log.error("%s", error)
        code = error.exit_code
    except BaseException:
        log.exception("The process %s crashed.", request["name"])
    finally:
        _exit(code)


def _exit(code: int) -> NoReturn:
    """Exit without the exit handlers that this process has inherited."""
    terminate_children()
    _flush_traces()
    _flush_telemetry()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _flush_traces() -> None:
    """Export the last traces of the Agents SDK, if this process has run agents: its exit handler does not run."""
    tracing = sys.modules.get("agentexec.runners.openai.tracing")
    if tracing is not None:
        with contextlib.suppress(Exception):
            tracing.flush_traces(FLUSH_SECONDS)


def _set_up_providers(process_id: str) -> None:
    """Set up the providers of OpenTelemetry. Without them the tasks run untraced, which beats not running."""
    try:
        importlib.import_module(PROVIDERS_MODULE).set_up(process_id)
    except Exception as error:
        log.error("Cannot set up OpenTelemetry: %s. This process exports nothing.", str(error).rstrip("."))


def _flush_telemetry() -> None:
    """Export the last spans and metrics of OpenTelemetry, if this process has any."""
    providers = sys.modules.get(PROVIDERS_MODULE)
    if providers is not None:
        with contextlib.suppress(Exception):
            if not providers.flush(FLUSH_SECONDS):
                log.warning("The last spans and metrics could not be exported within %g s.", FLUSH_SECONDS)


def _run_worker(
    request: dict[str, Any], alive: int, registry: Registry, forks: Forks, reports: int, board: Scoreboard
) -> int:
    turnover = Turnover(
        board.cell(request["cell"]),
        CONF.worker_concurrency,
        max_tasks=CONF.max_tasks_per_child,
        burst=CONF.burst,
        predecessors=[(board.cell(number), start) for number, start in request["after"]],
    )
    worker = importlib.import_module(WORKER_MODULE).Worker(registry, RUNTIME, CONF, request["id"], turnover)

    reporter = Reporter(reports, request["id"], worker.report, RUNTIME.meter)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        forks.note_loop(loop)
        ignore_signals(signal.SIGINT)
        loop.add_signal_handler(signal.SIGTERM, worker.drain)
        loop.add_signal_handler(signal.SIGQUIT, worker.drain_now)
        _watch_supervisor(alive, lambda: loop.call_soon_threadsafe(worker.drain_now))
        reporter.start()
        await worker.run()
        reporter.stop()
        if len(asyncio.all_tasks()) > 1:
            # Handlers that refused to be canceled; closing the loop would wait for them.
            _exit(0)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        loop = runner.get_loop()
        try:
            run_to_end(loop, MainTask(work(), loop=loop))
        except BaseException:
            if worker.abandon():
                log.exception("The event loop has ended; its tasks go back to the queue.")
                # The handlers are still there, and closing the loop would run them.
                _exit(1)
            raise
    return 0


def _loop_factory() -> Any:
    """Return uvloop's event loop, where it is installed."""
    try:
        return importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None


def _run_maintenance(
    request: dict[str, Any], registry: Registry, alive: int, supervisor: socket.socket, reports: int
) -> int:
    connect_timeout = math.inf if "again" in request else CONF.connect_timeout
    maintenance = importlib.import_module(MAINTENANCE_MODULE).Maintenance(
        RUNTIME,
        CONF,
        request["id"],
        supervisor,
        connect_timeout=connect_timeout,
        registry=registry,
        reports=reports,
    )
    ignore_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _watch_supervisor(alive, maintenance.stop)
    return maintenance.run()


def _watch_supervisor(alive: int, on_gone: Callable[[], object]) -> None:
    """Call `on_gone` when the supervisor's end of the pipe closes, and end this process soon after in any case."""

    def watch() -> None:
        while True:
            try:
                if not os.read(alive, 1):
                    break
            except InterruptedError:
                continue
            except OSError:
                break
        log.warning("The supervisor is gone. Handing tasks back and exiting.")
        with contextlib.suppress(RuntimeError):
            on_gone()
        time.sleep(ORPHAN_SECONDS)
        terminate_children()
        os._exit(1)

    threading.Thread(target=watch, name="agentexec-alive", daemon=True).start()


def _die_with_parent() -> None:
    """On Linux, have the kernel kill this process with the template, even if it hangs in native code."""
    if sys.platform == "linux":
        parent = os.getppid()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

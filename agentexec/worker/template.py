"""The template process: loads the user's module once, and forks every other process from itself.

A forked worker starts in milliseconds and shares the memory of the loaded modules. Forking is safe because this process
has one thread and no connection. If the user's module has started threads of its own, each worker is a new interpreter
instead, which loads the module again.

It exchanges JSON lines with the supervisor over a socket. `{"fork": {"role", "id", "name", …}}` and `{"stop": true}` come in;
`loaded`, `failed`, `forked`, `unforked` and `exited` go out. When the supervisor's end of the alive pipe closes, all processes end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

from agentexec.config import CONF
from agentexec.db.base import Base
from agentexec.errors import AgentexecError
from agentexec.redaction import compile_rules, redact
from agentexec.runtime import RUNTIME
from agentexec.worker import logs
from agentexec.worker.channel import Channel
from agentexec.worker.child_main import (
    MAINTENANCE_MODULE,
    ORPHAN_SECONDS,
    WORKER_MODULE,
    run_child,
)
from agentexec.worker.failed_start import to_message
from agentexec.worker.forks import Forks, ignore_signals
from agentexec.worker.installation import installed_release, own_module
from agentexec.worker.loading import HasRegistry, load
from agentexec.worker.scoreboard import Scoreboard
from agentexec.worker.target import Target

log = logging.getLogger("agentexec.worker")

SUPERVISOR_SETTINGS = {
    "num_workers",
    "worker_concurrency",
    "queue_name",
    "queues",
    "graceful_shutdown_timeout",
    "host_timeout",
    "max_tasks_per_child",
    "max_memory_per_child",
    "hang_timeout",
}
"""Settings that the supervisor uses and the user's module may set."""

GC_THRESHOLDS = (10_000, 5, 5)
"""New objects after which a process collects garbage, and collections of one generation for each one of the next. With Python's
own numbers, hundreds of agents at once spend a sixth of their processor time on that."""

CHILDREN_MODULE = "agentexec.journal.children"
"""Module that `ax.enqueue` imports in tasks only."""

REAP_INTERVAL = 60.0
"""Longest time in seconds between two looks for children that have ended, if a signal was lost."""


@dataclass(frozen=True, slots=True)
class TemplateArgs:
    """Arguments of the template process. The numbers are file descriptors."""

    target: Target
    control: int
    alive: int
    maintenance: int
    board: int
    run_atexit: bool
    overrides: tuple[str, ...] = ()
    """Names of settings whose environment variables take precedence over what the module sets."""
    spawned: dict[str, Any] | None = None
    """Set in a process that is not a template but a single worker: the supervisor's request for it."""
    show_traceback: bool = False
    reports: int = -1
    """-1 if no process reports to the supervisor."""
    nohup: bool = False
    """Ignore SIGHUP, also in programs: the supervisor, which handles it, cannot pass that on."""

    @classmethod
    def parse(cls, text: str) -> TemplateArgs:
        """Read the arguments from the JSON that the supervisor passes."""
        data = json.loads(text)
        return cls(target=Target.from_dict(data.pop("target")), **data)


class Template:
    """The loop of the template process."""

    def __init__(self, args: TemplateArgs, pool: HasRegistry, forks: Forks, board: Scoreboard) -> None:
        self._args = args
        self._board = board
        self._forks = forks
        self._pool = pool
        self._control = Channel(socket.socket(fileno=args.control))
        self._maintenance = socket.socket(fileno=args.maintenance)
        self._stopping = False
        # Native thread pools (BLAS) can be forked. Python's threads hold locks that stay locked after a fork.
        self._can_fork = hasattr(os, "fork") and threading.active_count() == 1
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def run(self) -> int:
        """Fork on demand until told to stop, and return the exit code."""
        ignore_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the user's module may have set others
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()
        settings = CONF.model_dump(include=SUPERVISOR_SETTINGS)
        self._control.send(
            {"loaded": True, "forks": self._can_fork, "settings": settings, "release": installed_release()}
        )
        while not self._stopping:
            ready, _, _ = select.select([self._control, self._wake_read], [], [], REAP_INTERVAL)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            self._reap()
            if self._control in ready and not self._listen():
                self._outlive_children()
                return 1
        return 0

    def _listen(self) -> bool:
        """Act on the supervisor's messages. Returns False if the supervisor is gone."""
        messages = self._control.read()
        if messages is None:
            return False
        for message in messages:
            if "fork" in message:
                try:
                    self._fork(message["fork"])
                except OSError as error:
                    # No memory, or too many processes. Those that run must not die of that.
                    self._control.send({"unforked": message["fork"]["id"], "error": error.strerror})
            if message.get("stop"):
                self._stopping = True
        return True

    def _fork(self, request: dict[str, Any]) -> None:
        if not self._can_fork:
            self._spawn(request)
            return
        sys.stdout.flush()
        sys.stderr.flush()
        pid = self._forks.fork_worker()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            run_child(
                request,
                self._pool.registry,
                self._args.alive,
                self._maintenance,
                self._forks,
                self._args.reports,
                self._board,
            )
        self._control.send({"forked": request["id"], "pid": pid})

    def _spawn(self, request: dict[str, Any]) -> None:
        """Start a new interpreter that loads the module by itself."""
        args = {
            "target": self._args.target.to_dict(),
            "control": -1,
            "alive": self._args.alive,
            "maintenance": self._args.maintenance,
            "board": self._args.board,
            "overrides": self._args.overrides,
            "run_atexit": False,
            "spawned": request,
            "reports": self._args.reports,
        }
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*own_module("agentexec.worker.template"), json.dumps(args)],
            pass_fds=[
                fd
                for fd in (self._args.alive, self._args.maintenance, self._args.board, self._args.reports)
                if fd >= 0
            ],
        )
        # `_reap` waits for any child, so Popen must not wait for this one.
        process.returncode = 0
        self._control.send({"forked": request["id"], "pid": process.pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._control.send({"exited": pid, "code": os.waitstatus_to_exitcode(status)})

    def _outlive_children(self) -> None:
        """Wait for workers to hand their tasks back when the supervisor is gone: they die when this process dies."""
        deadline = time.monotonic() + ORPHAN_SECONDS + 1
        while time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.05)
            except ChildProcessError:
                return


def _preload() -> None:
    """Load what every worker needs: its modules, the database's driver, the client of the state backend."""
    for name in (WORKER_MODULE, MAINTENANCE_MODULE, CHILDREN_MODULE):
        importlib.import_module(name)
    for name in (CONF.backend_module, "uvloop"):
        with contextlib.suppress(ImportError):  # a worker that needs it reports how to install it
            importlib.import_module(name)
    _ = RUNTIME.engine
    Base.registry.configure()
    compile_rules()


def _load_pool(args: TemplateArgs, forks: Forks) -> HasRegistry:
    """Load the user's module, under the settings that take precedence over what it sets."""
    overrides: dict[str, Any] = {name: getattr(CONF, name) for name in args.overrides}
    with forks.noting_generators():
        pool = load(args.target)
    for name, value in overrides.items():
        setattr(CONF, name, value)
    if "queue_name" in overrides:
        pool.registry.queue_name = CONF.queue_name
    elif pool.registry.queue_name is not None:
        CONF.queue_name = pool.registry.queue_name
    if "queues" not in overrides and pool.registry.queues is not None:
        CONF.queues = pool.registry.queues
    if CONF.pin_versions:
        pool.registry.require_versions(CONF.worker_version)
    _preload()
    return pool


def _report_failure(args: TemplateArgs, error: AgentexecError) -> NoReturn:
    """Report that the module cannot be loaded, and exit."""
    if args.show_traceback:
        sys.stderr.write(redact(traceback.format_exc(), CONF.secrets))
    report = json.dumps(to_message(error)).encode() + b"\n"
    if args.spawned is None:
        os.write(args.control, report)
    elif args.spawned["role"] == "maintenance" and "again" not in args.spawned:
        # The start fails with it: another process would load the same module in vain.
        os.write(args.maintenance, report)
    else:
        log.error("%s", error)
    os._exit(error.exit_code)


def main(text: str) -> NoReturn:
    """Run the process; `text` is the supervisor's TemplateArgs."""
    args = TemplateArgs.parse(text)
    gc.set_threshold(*GC_THRESHOLDS)  # before the user's module, which may set others
    forks = Forks()
    forks.register()
    if args.nohup:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ignore_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for descriptor in (args.control, args.alive, args.maintenance, args.board, args.reports):
        if descriptor >= 0:
            # A program started by the user's code would keep it open, and the end of this process would go unnoticed.
            os.set_inheritable(descriptor, False)
    logs.set_up("template", CONF)
    RUNTIME.only_reads_program = True
    try:
        pool = _load_pool(args, forks)
    except AgentexecError as error:
        _report_failure(args, error)
    board = Scoreboard(args.board)
    if args.spawned is not None:
        maintenance = socket.socket(fileno=args.maintenance)
        run_child(args.spawned, pool.registry, args.alive, maintenance, forks, args.reports, board)
    code = Template(args, pool, forks, board).run()
    if not args.run_atexit:
        # The main program loaded the module too, and runs its exit handlers itself.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])

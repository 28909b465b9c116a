"""The template process: loads the user's module once and forks every worker from itself.

Forking makes a worker start in milliseconds and share the loaded modules' memory. It is safe because this
process has one thread and no connection. Where the user's module has started threads of its own, each worker
is a new interpreter instead, which loads the module again.

Speaks JSON lines with the supervisor over a socket. Takes `{"fork": {"role", "id", "name"}}` and `{"stop": true}`;
tells `loaded`, `failed`, `forked` and `exited`. When the supervisor's end of the alive pipe closes, all end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import math
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
from agentexec.redaction import redact
from agentexec.runtime import RUNTIME
from agentexec.worker import logs
from agentexec.worker.channel import Channel
from agentexec.worker.target import HasRegistry, Target

log = logging.getLogger("agentexec.worker")

ORPHAN_SECONDS = 3.0
"""Seconds that workers get to hand their tasks back when the supervisor is gone."""

FOR_SUPERVISOR = {"num_workers", "worker_concurrency", "queue_name", "graceful_shutdown_timeout"}
"""Settings that the supervisor goes by; the user's module may have made them."""

WORKER_MODULE, MAINTENANCE_MODULE = "agentexec.worker.worker_process", "agentexec.worker.maintenance"
"""Modules that are imported after the user's: with them the tables get their names, for which it may set a prefix."""

WORKER = "worker"
MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class TemplateArgs:
    """What the supervisor starts this process with; the numbers are file descriptors."""

    target: Target
    control: int
    alive: int
    maintenance: int
    run_atexit: bool
    overrides: tuple[str, ...] = ()
    """Names of settings whose variables win over what the module sets."""
    spawned: dict[str, str] | None = None
    """Set in a process that is no template but one worker."""
    show_traceback: bool = False

    @classmethod
    def parse(cls, text: str) -> TemplateArgs:
        data = json.loads(text)
        target = data.pop("target")
        return cls(target=Target(target["module"], target["attribute"], tuple(target["path"])), **data)


class Template:
    """The loop of the template process."""

    def __init__(self, args: TemplateArgs, pool: HasRegistry) -> None:
        self._args = args
        self._pool = pool
        self._control = Channel(socket.socket(fileno=args.control))
        self._maintenance = socket.socket(fileno=args.maintenance)
        self._stopping = False
        # Native thread pools (BLAS) know how to be forked; Python's threads hold locks that a fork leaves locked.
        self._can_fork = hasattr(os, "fork") and threading.active_count() == 1
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def run(self) -> int:
        """Fork on demand until told to stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()
        settings = CONF.model_dump(include=FOR_SUPERVISOR)
        self._control.send({"loaded": True, "forks": self._can_fork, "settings": settings})
        while not self._stopping:
            ready, _, _ = select.select([self._control, self._wake_read], [], [], 60.0)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            self._reap()
            if self._control in ready and not self._listen():
                self._outlive_children()
                return 1
        return 0

    def _listen(self) -> bool:
        messages = self._control.read()
        if messages is None:
            return False
        for message in messages:
            if "fork" in message:
                self._fork(message["fork"])
            if message.get("stop"):
                self._stopping = True
        return True

    def _fork(self, order: dict[str, str]) -> None:
        if not self._can_fork:
            self._spawn(order)
            return
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            run_child(order, self._pool, self._args, self._maintenance)
        self._control.send({"forked": order["id"], "pid": pid})

    def _spawn(self, order: dict[str, str]) -> None:
        """A new interpreter that loads the module by itself."""
        args = {
            "target": self._args.target.to_dict(),
            "control": -1,
            "alive": self._args.alive,
            "maintenance": self._args.maintenance,
            "overrides": self._args.overrides,
            "run_atexit": False,
            "spawned": order,
        }
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "agentexec.worker.template", json.dumps(args)],
            pass_fds=[self._args.alive, self._args.maintenance],
        )
        # Reaped with the forked ones: `_reap` waits for any child.
        process.returncode = 0
        self._control.send({"forked": order["id"], "pid": process.pid})

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
        """The supervisor is gone. Workers die with this process at once, so give them their moment first."""
        deadline = time.monotonic() + ORPHAN_SECONDS + 1
        while time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.05)
            except ChildProcessError:
                return


def run_child(
    order: dict[str, str], pool: HasRegistry, args: TemplateArgs, maintenance: socket.socket
) -> NoReturn:
    """Be a worker or the maintenance process, then end without the template's exit handlers."""
    code = 1
    try:
        _die_with_parent()
        RUNTIME.forget_connections()
        logs.set_up(order["name"], CONF.log_level)
        if order["role"] == MAINTENANCE:
            code = _run_maintenance(order, args, maintenance)
        else:
            maintenance.close()
            code = _run_worker(order, pool, args)
    except AgentexecError as error:
        log.error("%s", error)
        code = error.exit_code
    except BaseException:
        log.exception("The process %s crashed.", order["name"])
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End this process without the exit handlers that it has inherited."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_worker(order: dict[str, str], pool: HasRegistry, args: TemplateArgs) -> int:
    async def work() -> None:
        child = importlib.import_module(WORKER_MODULE).Worker(pool.registry, RUNTIME, CONF, order["id"])
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, child.drain)
        loop.add_signal_handler(signal.SIGQUIT, child.drain_now)
        _watch_supervisor(args.alive, lambda: loop.call_soon_threadsafe(child.drain_now))
        await child.run()
        if len(asyncio.all_tasks()) > 1:
            # Handlers that refused to be canceled; closing the loop would wait for them.
            _leave(0)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work())
    return 0


def _loop_factory() -> Any:
    """uvloop where it is installed."""
    try:
        return importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None


def _run_maintenance(order: dict[str, str], args: TemplateArgs, supervisor: socket.socket) -> int:
    connect_timeout = math.inf if "again" in order else CONF.connect_timeout
    maintenance = importlib.import_module(MAINTENANCE_MODULE).Maintenance(
        RUNTIME, CONF, order["id"], supervisor, connect_timeout=connect_timeout
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _watch_supervisor(args.alive, maintenance.stop)
    return maintenance.run()


def _watch_supervisor(alive: int, gone: Any) -> None:
    """Call `gone` when the supervisor's end of the pipe closes, and end this process soon after, whatever it does."""

    def watch() -> None:
        while True:
            try:
                if not os.read(alive, 1):
                    break
            except InterruptedError:
                continue
            except OSError:
                break
        log.warning("The supervisor is gone; this process hands its tasks back and ends.")
        with contextlib.suppress(RuntimeError):
            gone()
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="agentexec-alive", daemon=True).start()


def _die_with_parent() -> None:
    """On Linux, have the kernel end this process with the template, even if it hangs in native code."""
    if sys.platform == "linux":
        parent = os.getppid()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def _preload() -> None:
    """Load once what every worker needs: its modules, the database's driver, the client of the state backend."""
    for name in (WORKER_MODULE, MAINTENANCE_MODULE):
        importlib.import_module(name)
    for name in (CONF.backend_module, "uvloop"):
        with contextlib.suppress(ImportError):  # a worker that needs it says what to do
            importlib.import_module(name)
    _ = RUNTIME.engine
    Base.registry.configure()


def main(text: str) -> NoReturn:
    """Entry of the process; `text` is the supervisor's TemplateArgs."""
    args = TemplateArgs.parse(text)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logs.set_up("template", CONF.log_level)
    RUNTIME.is_worker_process = True
    overrides = {name: getattr(CONF, name) for name in args.overrides}
    try:
        pool = args.target.load()
        for name, value in overrides.items():
            setattr(CONF, name, value)
        _preload()
    except AgentexecError as error:
        if args.show_traceback:
            sys.stderr.write(redact(traceback.format_exc(), CONF.secrets))
        failure = {"failed": str(error), "exit_code": error.exit_code}
        if args.spawned is not None:
            log.error("%s", error)
            os._exit(error.exit_code)
        os.write(args.control, json.dumps(failure).encode() + b"\n")
        os._exit(error.exit_code)
    if args.spawned is not None:
        run_child(args.spawned, pool, args, socket.socket(fileno=args.maintenance))
    code = Template(args, pool).run()
    if not args.run_atexit:
        # The main program loaded the module too and runs its exit handlers itself.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])

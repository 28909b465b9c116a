"""The world of a run: servers, hosts behind proxies, producers; and what each action does to them."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from redis.exceptions import RedisError
from sqlalchemy import text

import agentexec as ax
from agentexec.db.transactions import writing
from agentexec.runtime import RUNTIME
from agentexec.schedules.record import find_schedules
from agentexec.state import dynamodb_backend
from tests.chaos.ledger import read_ledger
from tests.chaos.names import EFFECTS, LOCKED, SIDE
from tests.chaos.plan import EMBEDDED, HOSTS, WITH_DYNAMODB, WITH_REDIS, Action
from tests.chaos.proxy import Proxies, Proxy
from tests.chaos.receiver import SECRET, Receiver
from tests.deployment import REPOSITORY, Deployment
from tests.faults.ledger_script import BOOKING
from tests.servers import HOST, DynamoDB, Postgres, Server, Valkey
from tests.waiting import patient, wait_until

WORKLOAD = Path(__file__).parent / "workload.py"
WRONG_CLOCK = REPOSITORY / "tests" / "faults" / "wrong_clock"
FAR_MACHINE = REPOSITORY / "tests" / "chaos" / "far_machine"

SETTINGS: dict[str, Any] = {
    "num_workers": 2,
    "worker_concurrency": 6,
    "lease_seconds": 4,
    "host_timeout": 3,
    "max_crashes": 8,
    "graceful_shutdown_timeout": 3,
    "result_ttl": 3600,
    "activity_message_create": "Accepted.",
    "webhook_secret": SECRET,
    "webhook_private_addresses": True,
}
"""Short leases, so that outages outlast them. Innocent tasks must survive more crashes than chance gives them."""

DYNAMODB_SETTINGS = {"num_workers": 1, "lease_seconds": 10}
"""Fewer processes and renewals: commands of a queue are put one after the other, and the emulator is slower than AWS."""

QUEUES = ("-Q", f"{ax.CONF.queue_name}:3,{SIDE}:1")
RECYCLED = {"near": ("--max-tasks-per-child", "25"), "far": ("--max-memory-per-child", "170")}
"""Options of the hosts: two of them replace their processes now and then."""

TABLE = "chaos"
"""Table of DynamoDB."""

ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"

PRODUCERS = 2

KILLS = 2
"""Times that a move of a queue is killed before it is let through."""

START_TIMEOUT = 90.0
"""Seconds within which all hosts and producers must work."""


class World:
    """Servers, hosts and producers of one run. A context manager, which leaves no process behind.

    Args:
        folder: Empty folder for the files of the run.
        target: Name of the deployment, one of TARGETS.
        seed: Seed of the producers.
        rate: Operations that each producer starts per second.
        clock: Seconds by which the clock of the host `skewed` is ahead.
        without: Kinds of work that the producers leave out.
    """

    def __init__(
        self, folder: Path, target: str, *, seed: int, rate: float, clock: float, without: Sequence[str] = ()
    ) -> None:
        self.target = target
        self._folder = folder
        self._seed, self._rate, self._clock, self._without = seed, rate, clock, without
        self._open = ExitStack()
        self._hosts: dict[str, subprocess.Popen[bytes]] = {}
        self._down: set[str] = set()
        self._terminated: list[subprocess.Popen[bytes]] = []
        self._producers: list[subprocess.Popen[bytes]] = []
        self._numbers = itertools.count()
        self._proxies: dict[tuple[str, str], Proxy] = {}
        self._undo: list[tuple[float, int, Callable[[], None]]] = []
        self.redis: Valkey | None = None
        self._replica: Valkey | None = None
        self.dynamodb: DynamoDB | None = None
        self._queue_variables: dict[str, str] = {}
        """Variables by which processes find the server that has the queues."""
        self._queue_url = ""
        """The same as the argument of `move-queue`."""
        self._moving = False
        """True while the queues move: no host runs."""
        self.database: Postgres | None = None
        self._started = 0.0
        self.exit_codes: dict[str, int] = {}

    def __enter__(self) -> World:
        try:
            self._prepare()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _prepare(self) -> None:
        url = f"sqlite:///{self._folder / 'test.db'}"
        if self.target != EMBEDDED:
            # Without fsync, the data outlives the server's processes, and these are all that is killed here.
            durable = {"synchronous_commit": "on", "full_page_writes": "on"}
            self.database = self._open.enter_context(Postgres(fsync=False, settings=durable))
            url = self.database.create_database("chaos")
        if self.target == WITH_REDIS:
            undelayed = {"repl-diskless-sync-delay": "0"}
            self.redis = self._open.enter_context(Valkey(settings=undelayed))
            self._replica = self._open.enter_context(Valkey(settings=undelayed))
            follow(self._replica, self.redis)
            self._queue_variables = {"AGENTEXEC_REDIS_URL": self.redis.url}
            self._queue_url = self.redis.url
        if self.target == WITH_DYNAMODB:
            self.dynamodb = self._open.enter_context(DynamoDB())
            self._queue_variables = {
                "AGENTEXEC_STATE_BACKEND": dynamodb_backend.__name__,
                "AGENTEXEC_DYNAMODB_TABLE": TABLE,
            }
            self._queue_url = f"dynamodb://{TABLE}"
            self._open.enter_context(patch.dict(os.environ, self.dynamodb.environment))
        settings = SETTINGS | (DYNAMODB_SETTINGS if self.dynamodb is not None else {})
        self.deployment = Deployment(self._folder, url, broker=self.redis, database=self.database, **settings)
        self._open.callback(self.deployment.close)
        if self.dynamodb is not None:
            self.deployment.environment |= self._queue_variables
            self._open.callback(ax.CONF.model_fields_set.discard, "state_backend")
            use_queue(self.deployment.environment)
            dynamodb_backend.create_storage(ax.CONF)
        self.receiver = self._open.enter_context(Receiver(self._seed))
        self.deployment.environment |= {"CHAOS_WEBHOOK": self.receiver.url}
        ax.Base.metadata.create_all(RUNTIME.engine)
        with writing(RUNTIME.engine) as connection:
            connection.execute(text(f"CREATE TABLE {EFFECTS} (name VARCHAR(60), step INTEGER)"))
            LOCKED.create(connection)
            connection.execute(text(f"CREATE TABLE {BOOKING} (agent VARCHAR(60), topic VARCHAR(20))"))
        proxies = self._open.enter_context(Proxies())
        for host in HOSTS:
            servers = {"redis": self.redis, "dynamodb": self.dynamodb, "database": self.database}
            for name, server in servers.items():
                if server is not None:
                    self._proxies[host, name] = proxies.open(server.port)
        for host in HOSTS:
            self.start_host(host)
        # Faults that hit processes which still import their module prove nothing, and nobody ticks by then.
        self.deployment.wait_for(
            lambda: self.deployment.log.count("on queue") >= len(HOSTS) and count_runs() > 0,
            timeout=START_TIMEOUT,
        )
        for _ in range(PRODUCERS):
            self._start_producer()
        self.deployment.wait_for(
            lambda: (
                len({line["pid"] for line in read_ledger(self.deployment.ledger_file)["accepted"]})
                == PRODUCERS
            ),
            timeout=START_TIMEOUT,
        )
        self._started = time.monotonic()

    # ---- the schedule ------------------------------------------------------------------------------------

    def run(self, plan: Iterable[Action], seconds: float, say: Callable[[str], None]) -> None:
        """Carry out a schedule, and end what each action has begun, until the time is over."""
        for action in plan:
            self._work_until(action.at)
            say(str(action))
            getattr(self, f"_do_{action.kind.replace('-', '_')}")(action)
        self._work_until(seconds)

    def _work_until(self, at: float) -> None:
        while True:
            wait = at - self.elapsed
            self._revive()
            if self._undo and self._undo[0][0] <= min(at, self.elapsed):
                heapq.heappop(self._undo)[2]()
            elif wait <= 0:
                return
            else:
                time.sleep(min(wait, 0.05))

    def _work_while(self, condition: Callable[[], bool]) -> None:
        """End what actions have begun in its time, while a condition is true."""
        while condition():
            self._work_until(self.elapsed + 0.05)

    def _revive(self) -> None:
        """Start hosts that have ended, as systemd does."""
        if self._moving:
            return
        for host, supervisor in self._hosts.items():
            if supervisor.poll() is not None and host not in self._down:
                self.start_host(host)

    @property
    def elapsed(self) -> float:
        """Seconds since the start of the schedule."""
        return time.monotonic() - self._started

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._undo, (self.elapsed + seconds, next(self._numbers), call))

    def heal(self) -> None:
        """Stop the producers, end every fault, and see to it that all hosts run."""
        for producer in self._producers:
            producer.kill()
            producer.wait()
        while self._undo:
            heapq.heappop(self._undo)[2]()
        _resume(self.deployment.processes())
        for supervisor in self._terminated:
            supervisor.wait(patient(60))
        self._revive()

    def stop(self) -> None:
        """Stop all hosts in order; `exit_codes` has how they ended."""
        for host in HOSTS:  # one that has just started does not know SIGTERM yet
            wait_until(lambda host=host: self._find(host, "worker"), timeout=60)
        for host in self._hosts.values():
            host.send_signal(signal.SIGTERM)
        self.exit_codes = {name: host.wait(patient(60)) for name, host in self._hosts.items()}

    # ---- hosts -------------------------------------------------------------------------------------------

    def start_host(self, host: str) -> None:
        """Start the supervisor of a host, unless it runs."""
        old = self._hosts.get(host)
        if old is not None and old.poll() is None:
            return
        environment = {"PYTHONPATH": str(REPOSITORY), "CHAOS_HOST": host, **self._urls(host)}
        if host == "skewed":
            environment |= {"PYTHONPATH": f"{WRONG_CLOCK}:{REPOSITORY}", "CLOCK_AHEAD": str(self._clock)}
        if host == "far":
            environment["PYTHONPATH"] = f"{FAR_MACHINE}:{REPOSITORY}"
        command = [
            sys.executable,
            "-m",
            "agentexec",
            "worker",
            str(WORKLOAD),
            *QUEUES,
            *RECYCLED.get(host, ()),
        ]
        self._hosts[host] = self.deployment.spawn(command, ready=False, session=True, **environment)

    def _urls(self, host: str) -> dict[str, str]:
        urls: dict[str, str] = {}
        environment = self.deployment.environment
        servers: list[tuple[str, str, Server | None]] = [
            ("redis", "AGENTEXEC_REDIS_URL", self.redis),
            ("dynamodb", ENDPOINT, self.dynamodb),
            ("database", "AGENTEXEC_DATABASE_URL", self.database),
        ]
        for name, variable, server in servers:
            if server is not None and variable in environment:
                port = self._proxies[host, name].port
                urls[variable] = environment[variable].replace(f":{server.port}", f":{port}")
        return urls

    def processes_of(self, host: str) -> list[psutil.Process]:
        """Return the processes of a host, orphans too, the oldest first."""
        found: list[psutil.Process] = []
        for process in self.deployment.processes():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("CHAOS_HOST") == host and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def _find(self, host: str, kind: str, pick: float = 0.0) -> psutil.Process | None:
        """Return a process of a host, if there is one now."""
        supervisor = self._hosts[host]
        with contextlib.suppress(psutil.Error, AssertionError, IndexError):
            if kind == "supervisor":
                return psutil.Process(supervisor.pid) if supervisor.poll() is None else None
            if kind == "worker":
                workers = self.deployment.workers(supervisor)
                return workers[int(pick * len(workers))]
            return getattr(self.deployment, kind)(supervisor)
        return None

    def _signal(self, action: Action, kind: str, name: signal.Signals) -> None:
        process = self._find(action.host, kind, action.pick)
        if process is None:
            return
        with contextlib.suppress(psutil.Error):
            process.send_signal(name)
            if name is signal.SIGSTOP:
                self._after(action.seconds, lambda: _resume([process]))

    def _do_kill_worker(self, action: Action) -> None:
        self._signal(action, "worker", signal.SIGKILL)

    def _do_kill_template(self, action: Action) -> None:
        self._signal(action, "template", signal.SIGKILL)

    def _do_kill_maintenance(self, action: Action) -> None:
        self._signal(action, "maintenance", signal.SIGKILL)

    def _do_kill_supervisor(self, action: Action) -> None:
        self._signal(action, "supervisor", signal.SIGKILL)
        self._down.add(action.host)
        self._after(action.seconds, lambda: self._down.discard(action.host))

    def _do_kill_host(self, action: Action) -> None:
        for process in self.processes_of(action.host):
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._down.add(action.host)
        self._after(action.seconds, lambda: self._down.discard(action.host))

    def _do_deploy(self, action: Action) -> None:
        self._terminated.append(self._hosts[action.host])
        self._signal(action, "supervisor", signal.SIGTERM)
        self._down.add(action.host)
        self._after(action.seconds, lambda: self._down.discard(action.host))

    def _do_reload(self, action: Action) -> None:
        self._signal(action, "supervisor", signal.SIGHUP)

    def _do_stop_worker(self, action: Action) -> None:
        self._signal(action, "worker", signal.SIGSTOP)

    def _do_stop_maintenance(self, action: Action) -> None:
        self._signal(action, "maintenance", signal.SIGSTOP)

    def _do_stop_supervisor(self, action: Action) -> None:
        self._signal(action, "supervisor", signal.SIGSTOP)

    def _do_freeze_host(self, action: Action) -> None:
        processes = self.processes_of(action.host)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        self._after(action.seconds, lambda: _resume(processes))

    # ---- producers ---------------------------------------------------------------------------------------

    def _start_producer(self) -> None:
        arguments = [str(self._seed), str(len(self._producers)), str(self._rate), *self._without]
        with (self._folder / "producer.log").open("ab") as log:
            producer = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.producer", *arguments],
                env={**self.deployment.environment, "PYTHONPATH": str(REPOSITORY)},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        self._producers.append(producer)

    def _do_kill_producer(self, action: Action) -> None:
        alive = [producer for producer in self._producers if producer.poll() is None]
        if alive:
            alive[int(action.pick * len(alive))].kill()
            self._start_producer()

    # ---- network -----------------------------------------------------------------------------------------

    def _proxies_of(self, action: Action, *names: str) -> list[Proxy]:
        found = [self._proxies[action.host, name] for name in names if (action.host, name) in self._proxies]
        self._after(action.seconds, lambda: [proxy.heal() for proxy in found] and None)
        return found

    def _do_cut_redis(self, action: Action) -> None:
        for proxy in self._proxies_of(action, "redis"):
            proxy.cut()

    def _do_cut_database(self, action: Action) -> None:
        for proxy in self._proxies_of(action, "database"):
            proxy.cut()

    def _do_stall_redis(self, action: Action) -> None:
        for proxy in self._proxies_of(action, "redis"):
            proxy.stall()

    def _do_stall_database(self, action: Action) -> None:
        for proxy in self._proxies_of(action, "database"):
            proxy.stall()

    def _do_cut_dynamodb(self, action: Action) -> None:
        for proxy in self._proxies_of(action, "dynamodb"):
            proxy.cut()

    def _do_stall_dynamodb(self, action: Action) -> None:
        for proxy in self._proxies_of(action, "dynamodb"):
            proxy.stall()

    def _do_partition(self, action: Action) -> None:
        for proxy in self._proxies_of(action, "redis", "dynamodb", "database"):
            proxy.stall()

    # ---- servers -----------------------------------------------------------------------------------------

    def _do_empty_redis(self, action: Action) -> None:
        with contextlib.suppress(Exception):  # it may be frozen or full by an earlier fault
            self._empty_redis()

    def _empty_redis(self) -> None:
        assert self.redis is not None
        self.redis.flush()

    def _do_restart_redis(self, action: Action) -> None:
        assert self.redis is not None
        self.redis.kill()
        self._after(action.seconds, self.redis.start)

    def _do_freeze_redis(self, action: Action) -> None:
        self._freeze(self.redis, action.seconds)

    def _freeze(self, server: Server | None, seconds: float) -> None:
        if server is not None and server.running:  # or an earlier fault has ended it
            server.pause()
            self._after(seconds, lambda: server.resume() if server.running else None)

    def _do_fill_redis(self, action: Action) -> None:
        with contextlib.suppress(Exception):
            self._set_redis_memory("1")
        self._after(action.seconds, self._empty_memory)

    def _empty_memory(self) -> None:
        with contextlib.suppress(Exception):
            self._set_redis_memory("0")

    def _set_redis_memory(self, limit: str) -> None:
        assert self.redis is not None
        with self.redis.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", limit)

    def _do_restart_dynamodb(self, action: Action) -> None:
        assert self.dynamodb is not None
        self.dynamodb.stop()
        self._after(action.seconds, self.dynamodb.start)

    def _do_lose_dynamodb(self, action: Action) -> None:
        """Let the table be lost, and made again after a while."""
        assert self.dynamodb is not None
        self.dynamodb.kill()
        self._after(action.seconds, self._create_table)

    def _create_table(self) -> None:
        assert self.dynamodb is not None
        self.dynamodb.start()
        self._repeat(lambda: dynamodb_backend.create_storage(ax.CONF))

    def _do_freeze_dynamodb(self, action: Action) -> None:
        self._freeze(self.dynamodb, action.seconds)

    def _do_throttle_dynamodb(self, action: Action) -> None:
        self._set_faults(action, "throttle", 0.3)

    def _do_drop_dynamodb(self, action: Action) -> None:
        self._set_faults(action, "lose", 0.1)

    def _do_delay_dynamodb(self, action: Action) -> None:
        self._set_faults(action, "delay", 0.1)

    def _set_faults(self, action: Action, fault: str, least: float) -> None:
        """Do something to a part of the requests to DynamoDB, to all of them at most."""
        assert self.dynamodb is not None
        server = self.dynamodb

        def set_faults(**shares: float) -> None:
            with contextlib.suppress(OSError):  # an earlier fault has ended it, or it is frozen
                server.set_faults(**shares)

        set_faults(**{fault: least + (1.0 - least) * action.pick})
        self._after(action.seconds, set_faults)

    def _do_failover_redis(self, action: Action) -> None:
        """Let the primary die. Its replica, which may lack the last writes, gets the address after a while."""
        assert self.redis is not None and self._replica is not None
        self.redis.kill()
        with contextlib.suppress(Exception):
            follow(self._replica, None)
        self._after(action.seconds, self._replace_primary)

    def _replace_primary(self) -> None:
        """Start the server at the address as a replica of the one that has the data, and let them change places."""
        assert self.redis is not None and self._replica is not None
        self.redis.start()
        follow(self.redis, self._replica)
        follow(self.redis, None)
        follow(self._replica, self.redis)

    def _do_move_queue(self, action: Action) -> None:
        """Move the queues from their server to the database or back, while producers run, and at first workers."""
        environment, chance = self.deployment.environment, random.Random(action.pick)
        old, began = dict(environment), time.monotonic()
        is_away = not self._queue_variables.keys() <= environment.keys()
        url = self._queue_url if is_away else "database"
        self._moving = True
        for _ in range(KILLS):
            self._move_queues(url, old, kill_after=chance.uniform(0.5, 9.0))
        self._move_queues(url, old)
        for host in self._hosts.values():
            host.send_signal(signal.SIGTERM)
        self._work_while(lambda: any(host.poll() is None for host in self._hosts.values()))
        for name in self._queue_variables:
            environment.pop(name, None)
        environment |= self._queue_variables if is_away else {}
        for producer in [producer for producer in self._producers if producer.poll() is None]:
            producer.kill()
            producer.wait()
            self._start_producer()
        # Nobody uses the old backend any more.
        self._move_queues(url, old)
        use_queue(environment)
        if not is_away and self.redis is not None:
            self._repeat(self._empty_redis)
        for queue in (ax.CONF.queue_name, SIDE):
            self._repeat(lambda queue=queue: ax.queues.resume_sync(queue, by="chaos"))
        self._moving = False
        # The faults that come next do not come all at once.
        self._started += time.monotonic() - began

    def _move_queues(self, url: str, environment: dict[str, str], *, kill_after: float | None = None) -> None:
        """Run the command for each queue until it succeeds, or kill it."""
        for queue in (ax.CONF.queue_name, SIDE):
            command = [
                sys.executable,
                "-m",
                "agentexec",
                "move-queue",
                "--to",
                url,
                "-q",
                queue,
            ]
            while True:
                with (self._folder / "move.log").open("ab") as log:
                    move = subprocess.Popen(
                        command, env=environment, cwd=self._folder, stdout=log, stderr=log
                    )
                until = time.monotonic() + (kill_after or 1e9)
                self._work_while(
                    lambda move=move, until=until: move.poll() is None and time.monotonic() < until
                )
                move.kill()
                if move.wait() == 0 or kill_after is not None:
                    break

    def _repeat(self, call: Callable[[], object]) -> None:
        """Make a call until the servers answer."""
        while True:
            try:
                call()
                return
            except (ax.UnavailableError, RedisError):
                self._work_until(self.elapsed + 0.2)

    def _do_restart_database(self, action: Action) -> None:
        assert self.database is not None
        (self.database.stop if action.pick < 0.5 else self.database.kill)()
        self._after(action.seconds, self.database.start)

    def _do_freeze_database(self, action: Action) -> None:
        self._freeze(self.database, action.seconds)

    def _do_lock_database(self, action: Action) -> None:
        """Keep the write lock of the SQLite file, as a backup or a person with a shell does."""

        def keep() -> None:
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(
                    sqlite3.connect(self._folder / "test.db", timeout=5, isolation_level=None)
                ) as connection,
            ):
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(action.seconds)
                connection.execute("ROLLBACK")

        threading.Thread(target=keep, daemon=True).start()


def use_queue(environment: Mapping[str, str]) -> None:
    """Let this process use the queue that processes with an environment use."""
    ax.CONF.redis_url = environment.get("AGENTEXEC_REDIS_URL")
    ax.CONF.dynamodb_table = environment.get("AGENTEXEC_DYNAMODB_TABLE", TABLE)
    if "AGENTEXEC_STATE_BACKEND" in environment:
        ax.CONF.state_backend = environment["AGENTEXEC_STATE_BACKEND"]
    else:
        ax.CONF.model_fields_set.discard("state_backend")
    ax.configure(database_url=environment["AGENTEXEC_DATABASE_URL"])


def follow(server: Valkey, primary: Valkey | None) -> None:
    """Make a server the replica of another one, and wait until it has its data; or make it a primary."""
    with server.client() as client:
        if primary is None:
            client.execute_command("REPLICAOF", "NO", "ONE")
            return
        client.execute_command("REPLICAOF", HOST, primary.port)
        wait_until(lambda: client.execute_command("ROLE")[3] == b"connected")


def count_runs() -> int:
    """Return how often the schedules have ticked. Raises UnavailableError."""
    return sum(schedule.runs for schedule in find_schedules(RUNTIME.engine))


def _resume(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.resume()

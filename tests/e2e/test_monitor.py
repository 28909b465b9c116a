"""`agentexec monitor` in a real terminal, which is tmux."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentexec as ax
from agentexec.runtime import RUNTIME
from bench import sample_record
from tests.deployment import Deploy, Deployment, on_one_target, on_targets, run_in_process, try_enqueue
from tests.waiting import patient, wait_until


class Terminal:
    """A terminal with a program in it, whose exit code appears on the screen."""

    def __init__(self, folder: Path, width: int, height: int, environment: dict[str, str]) -> None:
        self._socket = str(folder / "tmux")
        self._environment = {**environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), "-s", "t", "sh")
        self.tmux("set-option", "-g", "status", "off")

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", self._socket, "-f", "/dev/null", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=patient(10),
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "t", *keys)

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "t")

    def shows(self, *texts: str, timeout: float = 20) -> str:
        """Wait until the screen shows all of these texts, and return it."""
        try:
            wait_until(lambda: all(text in self.screen for text in texts), timeout=timeout)
        except AssertionError:
            raise AssertionError(f"not all of {texts} on the screen:\n{self.screen}") from None
        return self.screen

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def monitor(
    terminals: list[Terminal], deployment: Deployment, width: int, height: int, options: str = ""
) -> Terminal:
    folder = deployment.folder / f"terminal{len(terminals)}"
    folder.mkdir()
    terminal = Terminal(folder, width, height, {**os.environ, **deployment.environment})
    terminals.append(terminal)
    terminal.type(f"clear; {sys.executable} -m agentexec monitor -i 0.3 {options}; echo EXIT=$?", "Enter")
    return terminal


@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_long_session_with_every_key(deploy: Deploy, terminals: list[Terminal]) -> None:
    deployment = deploy()
    deployment.start()
    slow = deployment.enqueue("report", "slow", times=100, seconds=0.3)
    bad = deployment.enqueue("fail", "bad")
    deployment.enqueue("work", "good")
    deployment.wait_for_ends([bad])
    terminal = monitor(terminals, deployment, 80, 24)
    screen = terminal.shows("report", "running", "complete", "heartbeat", "1/10 tasks")
    assert max(len(line) for line in screen.splitlines()) <= 80
    assert re.search(r"active 1 +running 1 +queued 0", screen)
    assert re.search(r"running +report .*%.*Step \d+ of 100", screen)
    assert "━" in screen and "done/min" in screen
    places = [screen.index(word) for word in ("running   report", "complete  work", "error     fail")]
    assert places[0] == min(places), "running tasks come first"

    terminal.type("Enter")
    terminal.shows(str(slow.agent_id), "── log ──", "Task started.")
    terminal.type("Escape")
    terminal.shows("done/min")

    terminal.type("/", "status:error", "Enter")
    terminal.shows("filter: status:error", "Task failed with")
    wait_until(lambda: "report" not in terminal.screen)
    terminal.type("Enter")
    terminal.shows("── error ──", "ValueError: no luck")
    terminal.type("r")
    terminal.shows(f"Queue task {bad.agent_id} again?", "y: yes")
    terminal.type("y")
    deployment.wait_for(lambda: deployment.ledger("start")["bad"] == 2)
    terminal.type("Escape", "/")
    terminal.type(*["BSpace"] * 12)
    terminal.type("Enter")
    terminal.shows("running   report")

    terminal.type("?")
    terminal.shows("this help")
    terminal.type("x")
    terminal.shows("running   report")
    terminal.type("p")
    frozen = terminal.shows("PAUSED")
    assert re.findall(r"Step \d+", terminal.screen) == re.findall(r"Step \d+", frozen)
    terminal.type("p")
    terminal.type("c")
    terminal.shows(f"Cancel task {slow.agent_id}?", "y: yes")
    terminal.type("n")
    terminal.shows("running   report")
    assert deployment.status(slow) == "running", "nothing happens without a yes"
    terminal.type("c")
    terminal.shows("y: yes")
    terminal.type("y")
    terminal.shows("canceled  report")
    terminal.type("q")
    terminal.shows("EXIT=0")
    assert "done/min" not in terminal.screen, "the screen is restored"


@on_targets("embedded")
def test_a_large_terminal_shows_more_and_a_small_one_less(deploy: Deploy, terminals: list[Terminal]) -> None:
    deployment = deploy()
    sample_record.fill(RUNTIME.engine, 300, 1)
    large = monitor(terminals, deployment, 200, 50)
    screen = large.shows("AGENT_ID", "TOKENS", "No worker process has reported")
    lines = screen.rstrip("\n").splitlines()
    assert 48 <= len(lines) <= 50 and "q quit" in lines[-1]
    assert sum("task_" in line for line in lines) >= 44
    first = next(line for line in lines if "task_" in line)
    large.type("Right")
    large.shows("page 2")
    wait_until(lambda: first not in large.screen)
    large.type("Left", "j", "s")
    large.shows("sort: newest")
    large.tmux("resize-window", "-t", "t", "-x", "50", "-y", "12")
    screen = large.shows("STATUS    TASK")
    wait_until(lambda: max(len(line) for line in large.screen.splitlines()) <= 50)
    assert "PROGRESS" not in large.screen
    large.type("q")
    large.shows("EXIT=0")


@on_targets("embedded")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_terminal_is_restored_after_a_signal(
    deploy: Deploy, terminals: list[Terminal], how: signal.Signals, code: int
) -> None:
    deployment = deploy()
    terminal = monitor(terminals, deployment, 80, 24)
    terminal.shows("No tasks match.")
    found = [process for process in deployment.processes() if "monitor" in process.cmdline()]
    assert len(found) == 1
    found[0].send_signal(how)
    terminal.shows("EXIT=")
    if how is signal.SIGTERM:
        terminal.shows(f"EXIT={code}")
    terminal.type("clear; stty -a", "Enter")
    screen = terminal.shows("icanon")
    assert "-icanon" not in screen
    assert not re.search(r"-echo\b", screen)


@on_targets("embedded", alternates=False)
def test_it_can_be_suspended_and_resumed_like_any_program(deploy: Deploy, terminals: list[Terminal]) -> None:
    deployment = deploy()
    terminal = monitor(terminals, deployment, 80, 24)
    terminal.shows("No tasks match.")
    terminal.type("C-z")
    terminal.shows("Stopped")
    assert "done/min" not in terminal.screen, "the screen is the shell's"
    terminal.type("clear; stty -a", "Enter")
    screen = terminal.shows("icanon")
    assert "-icanon" not in screen and not re.search(r"-echo\b", screen)
    ax.enqueue_sync("work", {"key": "meanwhile"})
    terminal.type("fg; echo EXIT=$?", "Enter")
    terminal.shows("queued    work")
    terminal.type("q")
    terminal.shows("EXIT=0")


@on_targets("embedded")
def test_the_user_can_quit_while_the_database_does_not_answer(
    deploy: Deploy, terminals: list[Terminal]
) -> None:
    deployment = deploy()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://u:p@127.0.0.1:{silent.getsockname()[1]}/x"
        deployment.environment["AGENTEXEC_DATABASE_URL"] = url
        terminal = monitor(terminals, deployment, 80, 24)
        terminal.shows("loading...")
        wait_until(lambda: select.select([silent], [], [], 0)[0], timeout=20)
        terminal.type("?")
        terminal.shows("this help")
        terminal.type("q")
        terminal.shows("EXIT=0", timeout=5)


@on_targets("valkey+postgres")
def test_an_unreachable_database_is_reported_until_it_returns(
    deploy: Deploy, terminals: list[Terminal]
) -> None:
    deployment = deploy()
    terminal = monitor(terminals, deployment, 100, 24)
    terminal.shows("No tasks match.")
    assert deployment.database is not None
    deployment.database.kill()
    terminal.shows("cannot be")
    deployment.database.start()
    # A connection from before the restart may be tried first.
    deployment.wait_for(lambda: try_enqueue(deployment))
    terminal.shows("queued    work")
    terminal.type("q")
    terminal.shows("EXIT=0")


@on_targets("embedded")
def test_without_a_terminal_it_prints_once(deploy: Deploy) -> None:
    deployment = deploy()
    task = deployment.enqueue("work", "a")
    code, printed, _ = run_in_process(deployment, "monitor")
    assert code == 0
    assert "\x1b" not in printed
    assert re.search(r"queued +work", printed), printed
    code, printed, _ = run_in_process(deployment, "monitor", "--json", "-s", "queued", "-t", "work")
    found = json.loads(printed)
    assert [task["agent_id"] for task in found["activities"]] == [str(task.agent_id)]
    assert found["overview"]["active"] == 1
    assert str(task.agent_id) in run_in_process(deployment, "monitor", "--once")[1]
    assert str(task.agent_id) not in run_in_process(deployment, "monitor", "--once", "--text", "nowhere")[1]

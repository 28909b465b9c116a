"""Names of processes say on which machine and in which run of a supervisor they started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agentexec.worker.machine import Host, is_gone, new_host_name


def test_a_host_is_read_from_the_names_of_its_processes() -> None:
    name = new_host_name()
    host = Host.of(f"{name}:0123456789")
    assert host is not None
    assert (host.name, host.supervisor_pid) == (name, os.getpid())
    assert host == Host.of(f"{name}:another")


def test_two_runs_on_one_machine_are_two_hosts() -> None:
    first, second = (Host.of(f"{new_host_name()}:x") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first != second
    assert first.machine == second.machine


@pytest.mark.parametrize(
    "name", ["", "worker", "web:12:abc", "web:x:tag.run:abc", "a:1:2:3:4", "web:-1:tag.run:abc", ":::"]
)
def test_names_of_other_forms_name_no_host(name: str) -> None:
    assert Host.of(name) is None


def test_a_process_is_gone_once_only_its_exit_code_is_left() -> None:
    assert not is_gone(os.getpid())
    assert not is_gone(1)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert not is_gone(child.pid)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(child.pid)
    assert is_gone(child.pid)
    assert is_gone(2**70)

"""Names of processes say on which machine and in which run of a supervisor they started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agentexec.activity.models import MAX_LABEL
from agentexec.worker.machine import Host, is_gone, new_process_name, new_run_name


def test_a_host_is_read_from_the_names_of_its_processes() -> None:
    run = new_run_name()
    first, second = new_process_name(run, 10.0), new_process_name(run, 10.0)
    host = Host.of(first)
    assert first != second
    assert host is not None
    assert (host.name, host.supervisor_pid, host.timeout) == (f"{run}.10", os.getpid(), 10.0)
    assert host == Host.of(second)


def test_two_runs_on_one_machine_are_two_hosts() -> None:
    first, second = (Host.of(new_process_name(new_run_name(), 10.0)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first != second
    assert first.machine == second.machine


@pytest.mark.parametrize("timeout", [1.0, 2.5, 10.0, 299.25, 3600.0])
def test_a_name_tells_the_timeout_of_its_host(timeout: float) -> None:
    host = Host.of(new_process_name(new_run_name(), timeout))
    assert host is not None
    assert host.timeout == timeout


@pytest.mark.parametrize(("told", "timeout"), [("0", 1.0), ("0.001", 1.0), ("999999999", 3600.0)])
def test_a_name_from_the_database_cannot_tell_a_timeout_beyond_the_limits(told: str, timeout: float) -> None:
    host = Host.of(f"web:12:tag.run.{told}:abc")
    assert host is not None
    assert host.timeout == timeout


def test_the_name_of_a_process_fits_its_column_however_long_the_name_of_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((system[0], "n" * 255, *system[2:])))
    monkeypatch.setattr(os, "getpid", lambda: 2**22)
    name = new_process_name(new_run_name(), 1234.56789)
    host = Host.of(name)
    assert len(name) < MAX_LABEL
    assert host is not None
    assert host.timeout == pytest.approx(1234.57)


@pytest.mark.parametrize(
    "name",
    [
        *("", "worker", "web:12:abc", "web:x:tag.run.10:abc", "a:1:2:3:4", "web:-1:tag.run.10:abc", ":::"),
        *("web:12:tag.run:abc", "web:12:tag.run.:abc", "web:12:tag.run.nan:abc", "web:12:tag.run.-5:abc"),
        *(
            "web:12:tag.run.1e3:abc",
            "web:12:tag.run.inf:abc",
            "web:12:tag.run.1.2.3:abc",
            "web:12:tag.run.٣:abc",
        ),
    ],
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

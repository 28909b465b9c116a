"""A pidfile belongs to one living process: a second one is refused, what a dead one has left is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from agentexec.errors import SettingsError, UsageError
from agentexec.worker.pidfile import Pidfile

HOLDER = """
import sys, time
from pathlib import Path
from agentexec.worker.pidfile import Pidfile
held = Pidfile(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "pid")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_file_holds_the_pid_until_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    pidfile = Pidfile(file)
    assert file.read_text() == f"{os.getpid()}\n"
    pidfile.close()
    pidfile.close()
    assert not file.exists()
    Pidfile(None).close()


def test_a_living_holder_is_named_and_a_dead_one_is_replaced(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    file = tmp_path / "pid"
    with pytest.raises(UsageError, match=f"belongs to process {holder.pid}, which runs"):
        Pidfile(file)
    holder.kill()
    holder.wait()
    Pidfile(file).close()
    assert not file.exists()


def test_a_file_of_another_program_is_left_alone_unless_its_pid_was_used_again(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    file = tmp_path / "other.pid"
    file.write_text(str(holder.pid))
    with pytest.raises(UsageError, match=f"process {holder.pid}"):
        Pidfile(file)
    assert file.read_text() == str(holder.pid)
    os.utime(file, (1000.0, 1000.0))  # from before the process started
    Pidfile(file).close()


@pytest.mark.parametrize("content", ["", "99999999", "not a number", "-1", "this process"])
def test_what_names_no_other_process_is_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pid"
    file.write_text(content if content != "this process" else str(os.getpid()))
    pidfile = Pidfile(file)
    assert file.read_text() == f"{os.getpid()}\n"
    file.unlink()
    file.write_text("of another process by now")
    pidfile.close()
    assert file.read_text() == "of another process by now"


def test_a_file_that_cannot_be_written_and_a_link_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Cannot write AGENTEXEC_PIDFILE .*No such file"):
        Pidfile(tmp_path / "missing" / "pid")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(SettingsError):
        Pidfile(tmp_path / "link")
    assert not (tmp_path / "victim").exists()

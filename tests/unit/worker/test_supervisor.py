"""The supervisor hears what its processes say in an order that makes sense."""

from __future__ import annotations

import json
import logging
import selectors
import socket
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from agentexec.config import Settings
from agentexec.worker.channel import Channel
from agentexec.worker.supervisor import Supervisor
from agentexec.worker.target import Target
from agentexec.worker.template_handle import TemplateHandle


class FakeTemplate:
    """A template handle of which only the channel to the maintenance process is used."""

    def __init__(self, maintenance: Channel) -> None:
        self.maintenance = maintenance


def test_the_last_words_of_the_maintenance_process_come_before_its_death(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor(Target("worker"), Settings(num_workers=1))
    ours, theirs = socket.socketpair()
    template = FakeTemplate(Channel(ours))
    supervisor._template = cast(TemplateHandle, template)
    supervisor._selector = selectors.DefaultSelector()
    supervisor._selector.register(template.maintenance, selectors.EVENT_READ)
    supervisor._children.maintenance.id = "the-first"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with ours, theirs, supervisor._selector, caplog.at_level(logging.INFO):
        theirs.sendall(json.dumps({"failed": "The database is too old.", "exit_code": 5}).encode() + b"\n")
        supervisor._act_on({"forked": "the-first", "pid": gone.pid})
    assert supervisor._failed == 5
    assert [record.getMessage() for record in caplog.records] == ["The database is too old."]


def test_a_supervisor_that_waits_for_its_processes_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that loads slowly, or a server that is away, must not keep its loop spinning."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.chdir(tmp_path)
    supervisor, turns = Supervisor(Target.parse("slow_module"), Settings(num_workers=1)), 0

    def count(*_: object) -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(supervisor, "_enforce_deadline", count)
    assert supervisor.run(handle_signals=False) == 2, "it has no pool"
    assert 0 < turns < 20

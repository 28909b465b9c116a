"""The supervisor hears what its processes say in an order that makes sense."""

from __future__ import annotations

import json
import logging
import selectors
import socket
import subprocess
import sys

import pytest

from agentexec.config import Settings
from agentexec.worker.control import Channel
from agentexec.worker.supervisor import Supervisor
from agentexec.worker.target import Target


def test_the_last_words_of_the_maintenance_process_come_before_its_death(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor(Target("worker"), Settings(num_workers=1))
    ours, theirs = socket.socketpair()
    supervisor._to_maintenance = Channel(ours)
    supervisor._selector = selectors.DefaultSelector()
    supervisor._selector.register(supervisor._to_maintenance, selectors.EVENT_READ)
    supervisor._slots[0].id = "the-first"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with ours, theirs, supervisor._selector, caplog.at_level(logging.INFO):
        theirs.sendall(json.dumps({"failed": "The database is too old.", "exit_code": 5}).encode() + b"\n")
        supervisor._hear({"forked": "the-first", "pid": gone.pid})
    assert supervisor._failed == 5
    assert [record.getMessage() for record in caplog.records] == ["The database is too old."]

"""`agentexec chat`: what it prints while a turn does not start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import agentexec as ax
from tests.deployment import Deployment
from tests.waiting import patient


@pytest.mark.thorough
def test_chat_says_that_no_worker_has_the_task(tmp_path: Path, sqlite_tables: str) -> None:
    deployment = Deployment(tmp_path, sqlite_tables)
    deployment.start()
    with subprocess.Popen(
        [sys.executable, "-m", "agentexec", "chat", "suport", "-c", "c1"],
        cwd=deployment.folder,
        env=deployment.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as chat:
        assert chat.stdin and chat.stderr
        chat.stdin.write("Where is my order?\n")
        chat.stdin.close()
        said = iter(chat.stderr.readline, "")
        assert any("agentexec: No worker here has task suport" in line for line in said)
        [message] = ax.conversation("c1", task="suport").messages_sync()
        ax.cancel_sync(message.agent_id)
        assert chat.wait(patient(30)) == 0
    deployment.close()

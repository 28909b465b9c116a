"""The settings of a host reach its supervisor as they are."""

from __future__ import annotations

import json
from pathlib import Path

from agentexec.config import Settings
from agentexec.worker.host_settings import HostSettings


def test_the_settings_of_a_host_survive_the_way_to_another_program() -> None:
    settings = HostSettings.of(
        Settings(
            queues="high:3,low:1", pidfile=Path("worker.pid"), database_url="postgresql://u:hunter22@db/x"
        )
    )
    again = HostSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert again.pidfile == Path("worker.pid") and again.heartbeat_file is None
    assert "hunter22" in again.secrets
    assert again.queues_text == Settings(queues="high:3,low:1").queues_text

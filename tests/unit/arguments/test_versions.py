"""Versions of code, as users write them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from agentexec.config import Settings


async def handler(agent_id: UUID, context: dict[str, Any]) -> None:
    """Do nothing."""


def test_a_version_is_a_short_text() -> None:
    pool = ax.Pool()
    assert pool.task("plain", version="2026-11-28")(handler) is handler
    assert pool.registry.get("plain").version == "2026-11-28"
    assert Settings(worker_version="3").worker_version == "3"
    for wrong in (3, "", "x" * 101, "a\x00b", "ends with a space "):
        with pytest.raises(ax.UsageError, match="Task other: version"):
            ax.Pool().task("other", version=wrong)(handler)  # type: ignore[arg-type]


def test_a_version_of_the_settings_is_checked_alike() -> None:
    with pytest.raises(ax.SettingsError, match="AGENTEXEC_WORKER_VERSION cannot be used: it has at most 100"):
        ax.CONF.worker_version = "x" * 101

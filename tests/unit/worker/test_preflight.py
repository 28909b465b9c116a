"""The preflight ends a start that waiting cannot help, and waits for everything that may pass."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from agentexec.config import CONF, Settings
from agentexec.errors import SettingsError, UnavailableError, UsageError
from agentexec.payloads.sealing import _keyring
from agentexec.worker.preflight import preflight
from tests.stores import KEY
from tests.unit.worker.record import QUEUE, Record, open_record

SETTINGS = Settings(queue_name=QUEUE, redis_url="redis://localhost:1/0")


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


@pytest.fixture
def pings(record: Record, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Return the errors that the next pings raise, one each."""
    errors: list[Exception] = []

    def ping() -> None:
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(record.backend, "ping", ping)
    return errors


def test_a_server_that_cannot_be_used_is_refused_immediately(record: Record, pings: list[Exception]) -> None:
    pings += [UsageError("Unusable.")]
    with pytest.raises(UsageError, match="Unusable"):
        preflight(record.runtime, SETTINGS, 30.0)


def test_an_outage_is_waited_for_and_told_once(
    record: Record, pings: list[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pings += [UnavailableError("Away."), UnavailableError("Away.")]
    preflight(record.runtime, SETTINGS, 30.0)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == ["Away. Waiting for it.", "Connected to the state backend."]


def test_where_workers_already_serve_even_a_refusal_is_waited_for(
    record: Record, pings: list[Exception]
) -> None:
    """Its maintenance process may have to start again while somebody changes permissions or a password."""
    pings += [UsageError("Unusable."), UnavailableError("Away.")]
    preflight(record.runtime, SETTINGS, math.inf)
    assert pings == []


def test_a_payload_store_that_is_away_is_waited_for_and_a_wrong_one_is_refused(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CONF, "payload_store", (tmp_path / "missing").as_uri())
    with pytest.raises(UnavailableError, match=f"there is no folder {tmp_path / 'missing'}"):
        preflight(record.runtime, SETTINGS, 0.0)
    monkeypatch.setattr(CONF, "payload_store", "nosuch://bucket")
    with pytest.raises(SettingsError, match="AGENTEXEC_PAYLOAD_STORE cannot be used"):
        preflight(record.runtime, SETTINGS, 30.0)
    monkeypatch.setattr(CONF, "payload_store", tmp_path.as_uri())
    preflight(record.runtime, SETTINGS, 0.0)


@pytest.mark.parametrize(
    ("setting", "value", "module"),
    [("encryption_keys", KEY, "cryptography"), ("payload_store", "memory://here", "fsspec")],
)
def test_a_setting_whose_library_is_missing_is_refused(
    record: Record, setting: str, value: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keyring.cache_clear()
    monkeypatch.setattr(CONF, setting, value)
    monkeypatch.setitem(
        sys.modules, f"{module}.fernet" if module == "cryptography" else f"{module}.core", None
    )
    with pytest.raises(SettingsError, match=rf"needs {module}; install it with: pip install 'agentexec\["):
        preflight(record.runtime, SETTINGS, 30.0)

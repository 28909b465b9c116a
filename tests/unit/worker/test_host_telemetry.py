"""A worker says at its start what its telemetry lacks."""

from __future__ import annotations

import pytest

from agentexec.config import Settings
from agentexec.errors import SettingsError
from agentexec.worker import child_main, host_telemetry
from agentexec.worker.host_telemetry import HostTelemetry


def test_without_opentelemetry_the_worker_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_telemetry, "_has_opentelemetry", lambda: False)
    HostTelemetry(Settings())
    with pytest.raises(SettingsError, match=r"pip install 'agentexec\[otel\]'"):
        HostTelemetry(Settings(opentelemetry=True))


def test_without_a_port_or_a_service_manager_no_process_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert HostTelemetry(Settings()).descriptor == -1


def test_an_exporter_that_cannot_be_set_up_stops_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    child_main._set_up_providers("process")
    assert "names zipkin" in caplog.text and "exports nothing" in caplog.text

"""Real workers send their spans and metrics to a real receiver of OTLP, which is another process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentexec.telemetry import providers
from tests.deployment import Deploy, on_targets

COLLECTOR = Path(__file__).with_name("collector.py")


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    file = tmp_path / "exported.jsonl"
    file.touch()
    with subprocess.Popen(
        [sys.executable, str(COLLECTOR), str(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", file
        process.kill()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.thorough
@on_targets("embedded")
def test_forked_workers_export_all_attempts_also_the_last_ones_before_they_stop(
    deploy: Deploy, collector: tuple[str, Path]
) -> None:
    endpoint, file = collector
    deployment = deploy(num_workers=2, opentelemetry="true")
    deployment.start(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="600000")
    assert "loads it by itself" not in deployment.log
    tasks = [deployment.enqueue("work", str(number)) for number in range(6)]
    tasks.append(deployment.enqueue("fails", "f", times=1))
    deployment.wait_for(lambda: all(deployment.status(task) in ("complete", "error") for task in tasks))
    assert deployment.stop() == 0
    found = lines(file)
    attempts = [line for line in found if line.get("span", "").startswith("process ")]
    assert sorted(line["trace"] for line in attempts if line["span"] == "process work") == sorted(
        task.agent_id.hex for task in tasks[:6]
    )
    assert {line["trace"] for line in attempts if line["span"] == "process fails"} == {tasks[6].agent_id.hex}
    assert {line["resource"]["service.name"] for line in found} == {"agentexec"}
    instances = {line["resource"]["service.instance.id"] for line in attempts}
    assert 1 <= len(instances) <= 2
    names = {line["metric"] for line in found if "metric" in line}
    assert {"messaging.process.duration", "messaging.client.consumed.messages"} <= names


def test_an_unknown_exporter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none, zipkin")
    with pytest.raises(ValueError, match="OTEL_TRACES_EXPORTER names zipkin"):
        providers._exporters("TRACES")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert providers._exporters("TRACES") == []

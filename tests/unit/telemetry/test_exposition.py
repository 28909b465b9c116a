"""Prometheus reads what the library writes: names, units and values; the dashboard asks for names that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentexec.telemetry import exposition
from agentexec.telemetry.exposition import Reading, render
from agentexec.telemetry.meter import Meter
from agentexec.telemetry.names import COUNTED, DURATION, GAUGES, QUEUE_TASKS, TASKS, Counter
from docs.checks import ROOT

DASHBOARD = ROOT / "examples" / "grafana" / "agentexec.json"


def test_counts_and_readings_come_back_from_the_text() -> None:
    meter = Meter()
    meter.add(TASKS, 'odd "name"\n', "complete", amount=3)
    meter.observe(DURATION, 0.3, "research")
    text = render(meter.values(), [Reading(QUEUE_TASKS, ("default", "ready"), 7)]).decode()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[TASKS.name, (("status", "complete"), ("task", 'odd "name"\n'))] == 3
    assert samples[QUEUE_TASKS.name, (("queue", "default"), ("state", "ready"))] == 7
    buckets = [value for (name, _), value in samples.items() if name == f"{DURATION.name}_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == 1 and buckets[0] == 0
    assert samples[f"{DURATION.name}_count", (("task", "research"),)] == 1
    assert samples[f"{DURATION.name}_sum", (("task", "research"),)] == 0.3
    assert exposition.CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_names_follow_the_conventions_and_no_label_is_an_id_or_a_tenant() -> None:
    for metric in (*COUNTED.values(), *GAUGES):
        assert re.fullmatch(r"agentexec_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == isinstance(metric, Counter)
        assert set(metric.labels) <= {
            "task",
            "status",
            "model",
            "kind",
            "server",
            "reason",
            "queue",
            "state",
            "version",
        }
        assert metric.help.endswith(".")


def test_every_metric_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guides" / "observability.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(agentexec_\w+)` \| ([^|]*) \|", guide, re.MULTILINE))
    expected = {
        metric.name: ", ".join(f"`{label}`" for label in metric.labels)
        for metric in (*COUNTED.values(), *GAUGES)
    }
    assert rows == expected


def test_the_dashboard_asks_for_metrics_and_labels_that_exist() -> None:
    labels = {name: set(metric.labels) for name, metric in COUNTED.items()}
    for metric in COUNTED.values():
        labels |= {f"{metric.name}_{part}": {*metric.labels, "le"} for part in ("bucket", "sum", "count")}
    labels |= {gauge.name: set(gauge.labels) for gauge in GAUGES}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked: set[str] = set()
    for query in queries:
        names = set(re.findall(r"agentexec_\w+", query))
        assert names and names <= labels.keys(), query
        asked |= names
        for group in re.findall(r"by \(([^)]*)\)", query):
            allowed = {"instance"}.union(*(labels[name] for name in names))
            assert {label.strip() for label in group.split(",")} <= allowed, query
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert plain >= {*COUNTED, *(gauge.name for gauge in GAUGES)} - {"agentexec_info"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("library", ["prometheus_client", "opentelemetry"])
def test_importing_agentexec_imports_no_library_of_an_exporter(library: str) -> None:
    program = f"import sys, agentexec as ax; ax.Pool; ax.enqueue; assert {library!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)

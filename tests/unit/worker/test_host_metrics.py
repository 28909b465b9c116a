"""The metrics of a host add up what its processes report, whatever else these may say."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentexec.errors import SettingsError
from agentexec.telemetry.names import RESTARTS, TASKS
from agentexec.worker import host_metrics
from agentexec.worker.child_processes import Restart
from agentexec.worker.health import Health
from agentexec.worker.host_metrics import HostMetrics


def samples(metrics: HostMetrics) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_counts_of_all_processes_add_up_also_of_those_that_are_gone() -> None:
    health = Health()
    metrics = HostMetrics(health)
    metrics.note_turn(2, {Restart.CRASH: 1, Restart.RELOAD: 4})
    for process in ("a", "b", "a"):
        report = {
            "process": process,
            "claim": 0,
            "running": 2,
            "leases": 3,
            "counted": [[TASKS.name, ["t", "error"], [1]]],
        }
        health.note_report(report)
        metrics.note_report(report)
    health.keep_workers({"a"})
    health.note_report(
        {
            "process": "m",
            "queue": 0,
            "depth": {"q": {"ready": 4, "delayed": 5, "leased": 6}},
            "oldest": {"q": 7.5},
        }
    )
    found = samples(metrics)
    assert found[TASKS.name, "error", "t"] == 3
    assert (found[RESTARTS.name, "crash"], found[RESTARTS.name, "reload"]) == (1, 4)
    assert (found["agentexec_running_tasks",], found["agentexec_leases",]) == (2, 3)
    assert found["agentexec_worker_processes",] == 2
    assert [found["agentexec_queue_tasks", "q", state] for state in ("ready", "delayed", "leased")] == [
        4,
        5,
        6,
    ]
    assert found["agentexec_queue_oldest_age_seconds", "q"] == 7.5
    assert (found["agentexec_server_up", "queue"], found["agentexec_server_up", "database"]) == (1, 0)


@pytest.mark.parametrize(
    "report",
    [
        {"counted": None},
        {"counted": "many"},
        {"counted": [None, ["x"], [TASKS.name, ["t", "error"], [-1]]]},
        {"depth": 7, "oldest": [1], "running": "x", "queue": {}},
        {"depth": {"q": 7}, "oldest": {"q": "old"}},
    ],
)
def test_what_cannot_be_counts_is_left_out(report: dict[str, Any]) -> None:
    health = Health()
    metrics = HostMetrics(health)
    health.note_report({"process": "a", **report})
    metrics.note_report({"process": "a", **report})
    assert samples(metrics)["agentexec_running_tasks",] == 0


def test_without_its_library_the_worker_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_metrics, "exposition", None)
    with pytest.raises(SettingsError, match=r"pip install 'agentexec\[metrics\]'"):
        HostMetrics(Health())

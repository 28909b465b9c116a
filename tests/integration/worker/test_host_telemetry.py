"""Probes over HTTP, and messages to systemd, of real workers."""

from __future__ import annotations

import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.deployment import Deploy, on_targets, run_agentexec
from tests.waiting import patient


def free_port() -> int:
    with socket.create_server(("", 0)) as taken:
        return int(taken.getsockname()[1])


def probe(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@on_targets("embedded")
def test_probes_and_systemd_follow_a_worker_from_its_start_to_its_end(deploy: Deploy, tmp_path: Path) -> None:
    port = free_port()
    deployment = deploy(health_port=port)
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(tmp_path / "notify"))
    systemd.settimeout(patient(30))
    said: list[str] = []

    def hear(line: str) -> None:
        while line not in said:
            said.extend(systemd.recv(999).decode().splitlines())

    with systemd:
        variables = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "100000"}
        worker = deployment.start(ready=False, **variables)
        hear("READY=1")
        assert f"MAINPID={worker.pid}" in said and "STOPPING=1" not in said
        hear("WATCHDOG=1")
        hear("STATUS=Ready: 1 of 1 worker processes run.")
        assert "NOTIFY_SOCKET" not in deployment.template().environ()
        deployment.wait_for(lambda: probe(port, "/readyz")[0] == 200)
        assert probe(port, "/livez") == (200, "The worker is ready.\n")
        code = run_agentexec("worker", "x", "--health-port", str(port), cwd=tmp_path)
        assert (code.returncode, "Address already in use" in code.stderr) == (2, True)

        deployment.enqueue("work", "a", seconds=3)
        deployment.wait_for_start("a")
        worker.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert probe(port, "/readyz") == (503, "The worker is draining.\n")
        assert probe(port, "/livez")[0] == 200, "a worker that drains is alive"
        assert worker.wait(patient(20)) == 0


@on_targets("embedded")
def test_metrics_count_what_all_processes_of_a_host_do(deploy: Deploy) -> None:
    port = free_port()
    deployment = deploy(health_port=port, metrics_port=port, num_workers=2, max_crashes=1)
    deployment.start()
    assert probe(port, "/livez")[0] == 200
    for key in "abc":
        deployment.enqueue("work", key)

    def value(series: str) -> float | None:
        status, text = probe(port, "/metrics")
        assert status == 200
        return next(
            (float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series + " ")),
            None,
        )

    deployment.wait_for(lambda: value('agentexec_tasks_total{status="complete",task="work"}') == 3)
    assert value('agentexec_task_duration_seconds_count{task="work"}') == 3
    assert value('agentexec_task_wait_seconds_count{task="work"}') == 3
    deployment.wait_for(lambda: value('agentexec_queue_tasks{queue="agentexec_tasks",state="ready"}') == 0)
    deployment.enqueue("poison", "p")
    deployment.wait_for(lambda: value('agentexec_tasks_total{status="error",task="poison"}') == 1)
    assert value('agentexec_worker_restarts_total{reason="crash"}') == 1
    assert value('agentexec_tasks_total{status="complete",task="work"}') == 3


@pytest.mark.thorough
@on_targets("valkey+postgres", alternates=False)
def test_an_outage_makes_a_worker_unready_until_it_is_over_and_leaves_it_alive(deploy: Deploy) -> None:
    port = free_port()
    deployment = deploy(health_port=port)
    assert deployment.broker
    deployment.start()
    deployment.wait_for(lambda: probe(port, "/readyz")[0] == 200)
    deployment.broker.stop()
    deployment.wait_for(lambda: probe(port, "/readyz")[0] == 503, timeout=60)
    assert probe(port, "/livez")[0] == 200
    deployment.broker.start()
    deployment.wait_for(lambda: probe(port, "/readyz")[0] == 200, timeout=60)

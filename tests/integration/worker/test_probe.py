"""`agentexec worker --check` and `--ready`, on real workers."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agentexec.worker.probe import FAILING_SECONDS, STALE_SECONDS, judge, read
from tests.deployment import Deploy, Deployment, on_targets, run_agentexec, run_in_process, run_python
from tests.waiting import patient


def probe(deployment: Deployment, option: str) -> tuple[int, str]:
    """Run a probe, and return its exit code and its sentence."""
    code, out, err = run_in_process(deployment, "worker", option, "--heartbeat-file", "heartbeat.json")
    return code, out + err


@pytest.mark.thorough
@on_targets("valkey+postgres", alternates=False)
def test_probes_follow_a_worker_from_its_start_to_its_end(deploy: Deploy) -> None:
    deployment = deploy(heartbeat_file="heartbeat.json", num_workers=2)
    assert deployment.broker and deployment.database
    assert probe(deployment, "--check")[0] == 1, "none runs"
    supervisor = deployment.start()
    deployment.wait_for(lambda: "2 of 2" in probe(deployment, "--ready")[1])
    assert probe(deployment, "--check")[0] == probe(deployment, "--ready")[0] == 0
    task = deployment.enqueue("work", "a", seconds=3)
    deployment.wait_for_start("a")
    supervisor.send_signal(signal.SIGTERM)
    deployment.wait_for(lambda: probe(deployment, "--ready")[0] == 1)
    assert probe(deployment, "--check")[0] == 0, "a worker that drains is alive"
    assert "draining" in probe(deployment, "--ready")[1]
    assert supervisor.wait(patient(20)) == 0
    assert deployment.status(task) == "complete"
    assert probe(deployment, "--check")[0] == 1
    assert not (deployment.folder / "heartbeat.json").exists()


@pytest.mark.thorough
@on_targets("valkey+postgres", alternates=False)
def test_an_outage_of_both_servers_fails_no_probe(deploy: Deploy) -> None:
    deployment = deploy(heartbeat_file="heartbeat.json")
    assert deployment.broker and deployment.database
    deployment.start()
    deployment.broker.stop()
    deployment.database.stop()
    deployment.wait_for(lambda: "waits for it" in deployment.log)
    before = read(deployment.folder / "heartbeat.json")
    deployment.wait_for(lambda: read(deployment.folder / "heartbeat.json").time > before.time)
    assert probe(deployment, "--check")[0] == probe(deployment, "--ready")[0] == 0


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_probe_fails_for_a_supervisor_that_hangs_or_whose_processes_do_not_last(deploy: Deploy) -> None:
    deployment = deploy(heartbeat_file="heartbeat.json")
    file = deployment.folder / "heartbeat.json"
    supervisor = deployment.start()
    # A process that has just started has not lasted yet.
    deployment.wait_for(lambda: read(file).state == "ready" and read(file).failing_seconds > 0.5)
    last = replace(read(file), failing_seconds=FAILING_SECONDS + 1)
    assert not judge(last, last.time, ready=False).passes
    supervisor.send_signal(signal.SIGSTOP)
    deployment.wait_for(lambda: psutil.Process(supervisor.pid).status() == psutil.STATUS_STOPPED)
    last = read(file)
    verdict = judge(last, last.time + STALE_SECONDS + 1, ready=False)
    assert not verdict.passes and "hangs" in verdict.text
    supervisor.send_signal(signal.SIGCONT)
    deployment.wait_for(lambda: read(file).time > last.time)


LOADED = """
import atexit, sys
atexit.register(lambda: print(*sorted({"agents", "sqlalchemy", "redis", "typer", "pydantic", "psutil"} & set(sys.modules))))
sys.argv[1:] = ["worker", "--check"]
from agentexec.__main__ import main
main()
"""


def test_a_probe_loads_nothing_heavy(tmp_path: Path) -> None:
    done = run_python("-c", LOADED, cwd=tmp_path, AGENTEXEC_HEARTBEAT_FILE=str(tmp_path / "heartbeat.json"))
    assert (done.returncode, done.stdout) == (1, "\n")
    assert "There is no heartbeat file" in done.stderr


@pytest.mark.parametrize("option", ["--check", "--ready"])
def test_a_probe_without_a_file_says_what_to_set(option: str, tmp_path: Path) -> None:
    done = run_agentexec("worker", option, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "agentexec: No heartbeat file is set. Set AGENTEXEC_HEARTBEAT_FILE, for the worker and for this command.\n"
    )


def test_the_env_file_can_name_the_heartbeat_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AGENTEXEC_HEARTBEAT_FILE=beat.json\n")
    done = run_agentexec("worker", "--check", cwd=tmp_path)
    assert (done.returncode, "no heartbeat file beat.json" in done.stderr) == (1, True)


def test_a_worker_whose_heartbeat_cannot_be_written_says_so(tmp_path: Path) -> None:
    done = run_agentexec("worker", "nothing", "--heartbeat-file", "nowhere/beat.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "agentexec: Cannot write AGENTEXEC_HEARTBEAT_FILE nowhere/beat.json (No such file or directory).\n"
    )

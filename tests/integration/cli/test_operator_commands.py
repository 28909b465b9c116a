"""`agentexec doctor`, `init`, `version`, `enqueue --follow` and shell completion, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentexec as ax
from agentexec.db.urls import sqlite_file
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say
from tests.deployment import MODULE as WORKER
from tests.deployment import Deploy, on_one_target, on_targets, run_agentexec, run_in_process
from tests.waiting import patient

# ---- doctor ------------------------------------------------------------------------------------------------


def findings(printed: str) -> dict[str, tuple[str, str]]:
    return {finding["name"]: (finding["state"], finding["text"]) for finding in json.loads(printed)}


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_the_doctor_passes_a_healthy_deployment(deploy: Deploy) -> None:
    deployment = deploy()
    done = run_agentexec("doctor", str(WORKER), "--json", cwd=deployment.folder, **deployment.environment)
    found = findings(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {name: state for name, (state, _) in found.items() if name in ("database", "schema", "queue")} == {
        "database": "ok",
        "schema": "ok",
        "queue": "ok",
    }
    assert found["module"][0] == "ok" and "speaks" in found["module"][1]
    assert found["workers"] == ("warn", "none serves agentexec_tasks: start `agentexec worker`.")
    deployment.start()
    deployment.wait_for(
        lambda: findings(run_in_process(deployment, "doctor", "--json")[1])["workers"][0] == "ok"
    )
    assert run_in_process(deployment, "doctor")[1].count("\n") == 8


@pytest.mark.parametrize(
    ("variables", "name", "reason"),
    [
        ({"AGENTEXEC_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x"}, "database", "127.0.0.1:1"),
        ({"AGENTEXEC_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "queue", "127.0.0.1:1"),
        ({"AGENTEXEC_WORKER_MODULE": "nowhere"}, "module", "nowhere"),
        ({}, "database", "run `agentexec migrate`"),
    ],
    ids=["database", "redis", "module", "no-database"],
)
def test_the_doctor_says_what_is_wrong_without_secrets(
    variables: dict[str, str], name: str, reason: str, tmp_path: Path
) -> None:
    done = run_agentexec("doctor", "--json", cwd=tmp_path, OPENAI_API_KEY="hunter2", **variables)
    state, text = findings(done.stdout)[name]
    assert (done.returncode, state) == (1, "fail")
    assert reason in text
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_fails_a_redis_that_evicts_keys(valkey: Any, tmp_path: Path) -> None:
    with valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "100mb")
    try:
        done = run_agentexec("doctor", "--json", cwd=tmp_path, AGENTEXEC_REDIS_URL=valkey.url)
        state, text = findings(done.stdout)["queue"]
        assert state == "fail"
        assert "noeviction" in text
    finally:
        with valkey.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")


@on_targets("embedded", "postgres")
def test_the_doctor_fails_a_database_that_takes_no_writes(deploy: Deploy) -> None:
    deployment = deploy()
    if RUNTIME.engine.dialect.name == "postgresql":
        name = RUNTIME.engine.url.database
        with RUNTIME.engine.begin() as connection:
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    else:
        file = sqlite_file(RUNTIME.engine.url)
        ax.configure(database_url=f"sqlite:///file:{file}?mode=ro&uri=true")
    try:
        RUNTIME.engine.dispose()
        code, out, _ = run_in_process(deployment, "doctor", "--json")
        state, text = findings(out)["database"]
        assert (code, state) == (1, "fail") and "it takes no writes" in text
        assert "schema" not in findings(out)
    finally:
        if RUNTIME.engine.dialect.name == "postgresql":
            with RUNTIME.engine.begin() as connection:
                connection.exec_driver_sql("SET TRANSACTION READ WRITE")
                connection.exec_driver_sql(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            RUNTIME.engine.dispose()


# ---- init --------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_new_project_works_right_away(mock_openai: MockOpenAI, tmp_path: Path) -> None:
    done = run_agentexec("init", "shop", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "shop"
    assert sorted(path.name for path in folder.iterdir()) == [".env.example", "app.py", "worker.py"]
    mock_openai.script([call("founded", company="Acme"), say("Acme was founded in 1949.")])
    model = {"OPENAI_BASE_URL": mock_openai.base_url, "OPENAI_API_KEY": "mock"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "agentexec", "worker", "worker", "--workers", "1"],
        cwd=folder,
        env={**os.environ, **model},
        stderr=subprocess.DEVNULL,
    )
    try:
        greeted = run_agentexec(
            "enqueue", "greet", '{"name": "Ada"}', "--wait", "--timeout", "60", cwd=folder
        )
        assert greeted.stdout == "Hello, Ada.\n", greeted.stderr
        asked = run_agentexec(
            "enqueue",
            "research",
            '{"company": "Acme"}',
            "--follow",
            "--timeout",
            "60",
            cwd=folder,
            timeout=patient(90),
        )
        assert asked.stdout == "Acme was founded in 1949.\n", asked.stderr
        assert "100% Task completed successfully." in asked.stderr
    finally:
        worker.terminate()
        worker.wait(patient(30))
    started = subprocess.run(
        [sys.executable, "-c", "import app; print(sorted(app.app.openapi()['paths']))"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert "/research/{agent_id}" in started.stdout, started.stderr


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("mine")
    done = run_agentexec("init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "agentexec: app.py already exists; choose another folder.\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["app.py"]
    assert (tmp_path / "app.py").read_text() == "mine"
    (tmp_path / "file").touch()
    assert run_agentexec("init", "file/x", cwd=tmp_path).returncode == 2


# ---- version, completion, follow ---------------------------------------------------------------------------


def test_versions_are_printed(tmp_path: Path) -> None:
    found = json.loads(run_agentexec("version", "--json", cwd=tmp_path).stdout)
    assert found["agentexec"] == ax.__version__
    assert {"python", "openai-agents", "sqlalchemy"} <= set(found)
    assert f"agentexec {ax.__version__}\n" in run_agentexec("version", cwd=tmp_path).stdout


def test_the_shell_completes_verbs_and_options(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        variables = {
            "_AGENTEXEC_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        program = "import sys; sys.argv[0] = 'agentexec'; from agentexec.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert completed("agentexec can") == ["cancel", "cancel-pending"]
    assert "--metadata" in completed("agentexec list --m")


@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_follow_shows_the_progress_and_the_end(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    code, printed, err = run_in_process(
        deployment, "enqueue", "report", '{"key": "r", "times": 3, "seconds": 0.2}', "--follow"
    )
    assert (code, printed) == (0, "null\n")
    # A worker that has not reported yet makes for a first line about that.
    assert [line.strip() for line in err.partition("Task ")[2].splitlines()[1:]] == [
        "0% Waiting to start.",
        "0% Task started.",
        "0% Step 1 of 3",
        "33% Step 2 of 3",
        "66% Step 3 of 3",
        "100% Task completed successfully.",
    ]
    code, printed, err = run_in_process(deployment, "enqueue", "fail", '{"key": "f"}', "--follow")
    assert (code, printed) == (1, "")
    assert "no luck" in err
    code, _, err = run_in_process(
        deployment, "enqueue", "work", '{"key": "w", "seconds": 30}', "--follow", "--timeout", "0.5"
    )
    assert code == 1
    assert "has not ended after 0.5 s; it continues." in err

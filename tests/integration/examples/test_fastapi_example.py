"""The example application with FastAPI: started as its README says, and used by HTTP; and its migrations."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, inspect

from agentexec.schema.tables import is_at_head
from tests.deployment import REPOSITORY, clean_environment, run_python
from tests.waiting import patient, wait_until

EXAMPLE = REPOSITORY / "examples" / "openai-agents-fastapi"
LATEST = 60.0
"""Seconds for what takes a second on a machine that does nothing else."""

ALEMBIC = """
import sys
from alembic.config import main
for command in sys.argv[1:]:
    main(["--config", "alembic.ini", *command.split()])
"""
"""Program that runs Alembic's commands one after the other: starting it takes longer than they do."""


def alembic(*commands: str, url: str) -> str:
    """Return what Alembic prints; it must succeed."""
    done = run_python("-c", ALEMBIC, *commands, cwd=EXAMPLE, timeout=LATEST, DATABASE_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_alembic_makes_all_tables_and_autogenerate_finds_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    assert "No new upgrade operations detected" in alembic("upgrade head", "check", url=url)
    assert {"report", "agentexec_activity", "agentexec_alembic_version", "alembic_version"} <= tables(url)
    # agentexec takes the tables for its own: nothing is left for `agentexec migrate`.
    engine = create_engine(url)
    assert is_at_head(engine)
    engine.dispose()


@pytest.mark.thorough
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_alembic_goes_down_and_up_again(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        url = f"sqlite:///{tmp_path / 'app.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    alembic("upgrade head", "check", "downgrade base", url=url)
    assert tables(url) == {"agentexec_alembic_version", "alembic_version"}
    alembic("upgrade head", "check", url=url)


class Application:
    """The example as `python run.py` starts it, with a fast model and without the page."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "run.log"
        self.url = f"sqlite:///{folder / 'app.db'}"
        arguments = ["--port", "0", "--no-page", "--workers", "1", "--pace", "0.05"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLE / "run.py"), *arguments],
                env=clean_environment(DATABASE_URL=self.url),
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        self.http = httpx.Client(trust_env=False, timeout=patient(LATEST))

    def wait_until_started(self) -> None:
        self.http.base_url = wait_until(self._address, timeout=2 * LATEST)

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"The application is at (\S+)", self.log.read_text())
        return found and found[1]

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, code: int = 202) -> Any:
        answer = self.http.post(path, json={})
        assert answer.status_code == code, answer.text
        return answer.json()

    def close(self) -> None:
        self.http.close()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(patient(2 * LATEST)) == 0, self.log.read_text()


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    application = Application(tmp_path_factory.mktemp("application"))
    try:
        application.wait_until_started()
        yield application
    finally:
        application.close()


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_a_task_is_queued_approved_and_read_by_http(application: Application) -> None:
    agent_id = application.post("/research?company=Acme")["agent_id"]
    [question] = wait_until(lambda: application.get(f"/api/approvals?agent_id={agent_id}"), timeout=LATEST)
    assert (question["tool"], json.loads(question["arguments"])["company"]) == ("publish_report", "Acme")
    is_queued = lambda: application.get(f"/research/{agent_id}")["status"] == "queued"  # noqa: E731
    assert wait_until(is_queued, timeout=LATEST)
    assert application.get(f"/research/{agent_id}")["percentage"] == 70
    assert application.get("/reports") == []
    answer = application.post(f"/api/approvals/{agent_id}/{question['call_id']}/approve", 200)
    assert answer == {"changed": True}
    result = application.get(f"/research/{agent_id}/result?timeout=60")["result"]
    assert result.startswith("Acme is growing")
    [report] = application.get("/reports")
    assert (report["agent_id"], report["company"]) == (agent_id, "Acme")
    # The page's API tells the same, and its stream has everything from the first line to the last.
    assert application.get(f"/api/activity/{agent_id}")["status"] == "complete"
    events = application.http.get(f"/api/activity/{agent_id}/events").text
    assert re.findall(r"^event: (\w+)$", events, re.MULTILINE)[-1] == "result"
    assert "Gathering financials" in events and "Approved by" in events


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_the_pipeline_and_a_cancel_by_http(application: Application) -> None:
    agent_id = application.post("/comparisons?company=Acme")["agent_id"]
    result = application.get(f"/research/{agent_id}/result?timeout=60")["result"]
    assert result["text"].startswith("Invest.")
    agent_id = application.post("/research?company=Globex")["agent_id"]
    assert application.post(f"/api/activity/{agent_id}/cancel", 200) == {"changed": True}
    canceled = lambda: application.get(f"/research/{agent_id}")["status"] == "canceled"  # noqa: E731
    assert wait_until(canceled, timeout=LATEST)
    assert application.http.post("/research?company=").status_code == 422
    assert application.http.get(f"/research/{agent_id}/result").status_code == 409

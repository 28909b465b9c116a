"""Deployment files, checked with external tools and on real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import create_engine, text

import agentexec as ax
from agentexec.schema.migrate import upgrade
from tests.waiting import patient

REPOSITORY = Path(__file__).resolve().parents[3]


PROGRAMS = Path(sys.executable).parent


DOCKERFILES = [
    REPOSITORY / "Dockerfile.worker",
    REPOSITORY / "examples" / "openai-agents-fastapi" / "Dockerfile",
]


MANIFESTS = sorted((REPOSITORY / "examples" / "kubernetes").glob("*.yaml"))


GUIDE = REPOSITORY / "docs" / "guides" / "deployment.md"


def run(program: str, *arguments: str, text: str | None = None, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [PROGRAMS / program, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        cwd=REPOSITORY,
        input=text,
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    return done.returncode, done.stdout + done.stderr


def test_the_dockerfiles_pass_hadolint() -> None:
    assert run("hadolint", *map(str, DOCKERFILES)) == (0, "")


def test_the_dockerfiles_of_the_guide_pass_hadolint() -> None:
    blocks = re.findall(r"^```dockerfile\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert run("hadolint", "--ignore", "DL3007", "-", text=block) == (0, "")


@cache
def manifest(kind: str) -> dict[str, Any]:
    documents = [document for file in MANIFESTS for document in yaml.safe_load_all(file.read_text())]
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def test_the_query_counts_running_and_ready_tasks_by_index(postgres_url: str) -> None:
    (trigger,) = manifest("ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    engine = create_engine(postgres_url)
    upgrade(engine)
    insert = text(
        "INSERT INTO agentexec_activity (agent_id, agent_type, status, percentage, created_at, updated_at, queue, "
        "priority, run_at, epoch, attempt, crashes) SELECT gen_random_uuid(), 'work', :status, 0, now(), now(), :queue, "
        "1, now() + make_interval(secs => :due), 0, 0, 0 FROM generate_series(1, :number)"
    )
    rows = [
        ("COMPLETE", ax.CONF.queue_name, -9, 20_000),
        ("QUEUED", ax.CONF.queue_name, None, 30),
        ("QUEUED", ax.CONF.queue_name, -9, 10),
        ("RUNNING", ax.CONF.queue_name, -9, 5),
        ("QUEUED", ax.CONF.queue_name, 3600, 100),
        ("QUEUED", "another", None, 100),
        ("RUNNING", None, None, 100),
    ]
    with engine.begin() as connection:
        for status, queue, due, number in rows:
            connection.execute(insert, {"status": status, "queue": queue, "due": due, "number": number})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE agentexec_activity")
        assert connection.exec_driver_sql(query).scalar_one() == 45
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}").scalars())
    assert "Index Cond: ((status)" in plan and "Seq Scan" not in plan
    engine.dispose()

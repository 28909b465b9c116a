"""The programs of the reference, as a user would write them after reading it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, on_targets, run_agentexec
from tests.waiting import patient

DB = """
import os
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
import agentexec as ax

ax.CONF.redis_url = os.environ["THE_REDIS"]

engine = create_engine(os.environ["THE_DATABASE"])
ax.Base.metadata.create_all(engine)  # Creates activity tracking tables

def get_db():
    with Session(engine) as db:
        yield db
"""

WORKER = """
from uuid import UUID
from pydantic import BaseModel
import agentexec as ax
from .db import engine

class ResearchContext(BaseModel):
    company: str

pool = ax.Pool(engine=engine)

@pool.task("research_company")
async def research_company(agent_id: UUID, context: ResearchContext) -> str:
    ax.activity.update(agent_id, "Processing batch 3 of 10", percentage=30)
    return f"{context.company} is fine"

if __name__ == "__main__":
    pool.run()
"""

VIEWS = """
from uuid import UUID
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy.orm import Session
import agentexec as ax
from .worker import ResearchContext
from .db import get_db

router = APIRouter()

@router.post("/research")
async def start_research(company: str) -> dict:
    task = await ax.enqueue("research_company", ResearchContext(company=company))
    return {"agent_id": str(task.agent_id), "status": "queued"}  # Return agent_id for status polling

@router.get("/research/{agent_id}")
def get_status(agent_id: UUID, db: Session = Depends(get_db)) -> ax.activity.ActivityDetailSchema:
    return ax.activity.detail(db, agent_id=agent_id)  # Query by agent_id

app = FastAPI()
app.include_router(router)
"""

CLIENT = """
import json, sys, time
from fastapi.testclient import TestClient
from app.views import app

with TestClient(app) as client:
    agent_id = client.post("/research", params={"company": "Acme"}).json()["agent_id"]
    deadline = time.monotonic() + 15
    while (answer := client.get(f"/research/{agent_id}").json())["status"] != "complete":
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    print(json.dumps(answer))
    assert "agents" not in sys.modules
"""


@on_targets("valkey+sqlite")
def test_the_quick_start(deploy: Deploy) -> None:
    deployment = deploy()
    package = deployment.folder / "app"
    package.mkdir()
    for name, text in {"__init__": "", "db": DB, "worker": WORKER, "views": VIEWS}.items():
        (package / f"{name}.py").write_text(text)
    variables = {
        "THE_DATABASE": deployment.environment.pop("AGENTEXEC_DATABASE_URL"),
        "THE_REDIS": deployment.environment.pop("AGENTEXEC_REDIS_URL"),
    }
    worker = deployment.spawn([sys.executable, "-m", "app.worker"], session=True, **variables)
    client = deployment.spawn([sys.executable, "-c", CLIENT], ready=False, **variables)
    assert client.wait(30) == 0, deployment.log
    assert '"agent_type": "research_company"' in deployment.log
    assert "Processing batch 3 of 10" in deployment.log
    # The settings name neither the database nor Redis: the commands learn both from the module.
    place = {"cwd": deployment.folder, **deployment.environment, **variables}
    waited = run_agentexec(
        "enqueue",
        "research_company",
        '{"company": "Acme"}',
        "--wait",
        "--timeout",
        "20",
        "-A",
        "app.worker",
        **place,
    )
    assert waited.returncode == 0, waited.stderr
    checked = run_agentexec("doctor", "app.worker", "--json", **place)
    found = {finding["name"]: finding for finding in json.loads(checked.stdout)}
    assert checked.returncode == 0, checked.stdout
    assert all(found[name]["state"] != "fail" for name in ("module", "database", "schema", "queue"))
    assert found["workers"]["state"] == "ok"
    assert "agentexec.state.redis_backend" in found["queue"]["text"]
    assert not (deployment.folder / "agentexec.db").exists()
    os.killpg(worker.pid, signal.SIGINT)
    assert worker.wait(patient(15)) == 0


DOCKER = """
import atexit
import os
from uuid import UUID
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
import agentexec as ax

class MyContext(BaseModel):
    company: str

engine = create_engine(os.environ["DATABASE_URL"])
pool = ax.Pool(engine=engine)

def cleanup() -> None:
    with Session(engine) as db:
        canceled = ax.activity.cancel_pending(db)
    with open("cleanups", "a") as file:
        file.write(f"{canceled}\\n")

atexit.register(cleanup)

@pool.task("my_task")
async def my_task(agent_id: UUID, context: MyContext) -> None:
    pass
"""


@pytest.mark.thorough
@on_targets("valkey+postgres")
def test_the_docker_example_cleans_up_once_when_the_container_stops(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2)
    package = deployment.folder / "src"
    package.mkdir()
    (package / "worker.py").write_text(DOCKER)
    variables = {
        "DATABASE_URL": deployment.environment.pop("AGENTEXEC_DATABASE_URL"),
        "REDIS_URL": deployment.environment.pop("AGENTEXEC_REDIS_URL"),
        "AGENTEXEC_WORKER_MODULE": "src.worker",
    }
    deployment.spawn([sys.executable, "-m", "agentexec", "worker"], **variables)
    done = ax.enqueue_sync("my_task", {"company": "Acme"})
    assert ax.get_result_sync(done, patient(15)) is None
    pending = ax.enqueue_sync("my_task", {"company": "Acme"}, delay=60)
    assert deployment.stop() == 0
    assert (deployment.folder / "cleanups").read_text() == "1\n"
    assert [deployment.status(task) for task in (done, pending)] == ["complete", "canceled"]


MONITOR = """
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session
import agentexec as ax

def build_table(db: Session) -> Table:
    table = Table(title=f"Active Agents: {ax.activity.active_count(db)}")
    table.add_column("Status")
    table.add_column("Task")
    table.add_column("Message")
    table.add_column("Progress")

    for item in ax.activity.list(db, page=1, page_size=10).items:
        table.add_row(
            item.status,
            item.agent_type,
            item.latest_log_message or "",
            f"{item.percentage}%",
        )
    return table

with Session(ax.get_engine()) as db:
    Console(width=100).print(build_table(db))
"""


@pytest.mark.thorough
@on_targets("embedded")
def test_the_monitor_of_ones_own(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy()
    agent_id = ax.activity.create("research_company")
    ax.activity.update(agent_id, "Gathering financials…", percentage=40)
    monitor = deployment.spawn([sys.executable, "-c", MONITOR], ready=False)
    assert monitor.wait(15) == 0, deployment.log
    for text in ("Active Agents: 1", "running", "research_company", "Gathering financials…", "40%"):
        assert text in deployment.log


@pytest.mark.thorough
@on_targets("valkey+sqlite")
async def test_dynamic_fan_out_with_a_tracker(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2)
    (deployment.folder / "fan_out.py").write_text(
        """
from uuid import UUID
from pydantic import BaseModel
import agentexec as ax

pool = ax.Pool()

class Batch(BaseModel):
    batch_id: str
    number: int = 0

@pool.task("discover")
async def discover(agent_id: UUID, context: Batch) -> None:
    tracker = ax.Tracker("research", context.batch_id)
    tracker.incr(20)
    for number in range(20):
        await ax.enqueue("research", Batch(batch_id=context.batch_id, number=number))

@pool.task("research")
async def research(agent_id: UUID, context: Batch) -> None:
    tracker = ax.Tracker("research", context.batch_id)
    tracker.decr()
    if tracker.complete:
        await ax.enqueue("aggregate", context)

@pool.task("aggregate")
def aggregate(agent_id: UUID, context: Batch) -> str:
    return "all done"
"""
    )
    deployment.spawn([sys.executable, "-m", "agentexec", "worker", "fan_out"])
    await ax.enqueue("discover", {"batch_id": "b1"})

    def complete(name: str) -> int:
        with Session(RUNTIME.engine) as db:
            return ax.activity.list(db, agent_type=name, status="complete").total

    deployment.wait_for(lambda: complete("aggregate") == 1 and complete("research") == 20)
    with Session(RUNTIME.engine) as db:
        assert ax.activity.list(db, agent_type="aggregate").total == 1, "one of the twenty saw the end"
    assert ax.Tracker("research", "b1").count == 0

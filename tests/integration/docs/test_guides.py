"""Programs of the guides, extracted from docs/guides and run as readers would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import Deploy, Deployment, on_targets
from tests.guides import write_files

AGENTEXEC = Path(sys.executable).with_name("agentexec")


def run(deployment: Deployment, *arguments: str, **environment: str) -> str:
    """Return the output of `python …` in the folder of a deployment; it must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=deployment.folder,
        env={**deployment.environment, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_worker(deployment: Deployment, module: str, **environment: str) -> None:
    deployment.spawn([str(AGENTEXEC), "worker", module], **environment)


SETTINGS = """
import os
SECRET_KEY = "for a test"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["myapp.apps.MyAppConfig"]
ROOT_URLCONF = "myapp.urls"
AGENTEXEC_DATABASE_URL = os.environ["AGENTEXEC_DATABASE_URL"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": AGENTEXEC_DATABASE_URL.removeprefix("sqlite:///"),
        "TEST": {"NAME": ":memory:"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

DJANGO = """
import asyncio, django
django.setup()
from django.core.management import call_command
from django.test import AsyncClient, Client
import pytest

import agentexec as ax
from myapp.models import Ticket

call_command("makemigrations", "myapp", verbosity=0)
call_command("migrate", verbosity=0)
client = Client()
assert client.post("/tickets", {"text": "Help"}).json() == {"ticket": 1}
[task] = client.get("/tickets/1/tasks").json()["items"]
assert ax.get_result_sync(task["agent_id"], timeout=20) == "We have read: Help"
assert Ticket.objects.get().answer == "We have read: Help"
assert client.get(f"/tasks/{task['agent_id']}").json()["status"] == "complete"
assert ax.get_result_sync(ax.enqueue_sync("count_tickets"), timeout=20) == 1

Ticket.objects.create(text="forgotten")
Ticket.objects.update(created_at="2000-01-01T00:00Z")
for _ in range(2):
    call_command("enqueue_missing")
assert client.get("/tickets/2/tasks").json()["total"] == 1

async def events():
    response = await AsyncClient().get(f"/tasks/{task['agent_id']}/events")
    text = b"".join([part async for part in response.streaming_content]).decode()
    last = [line for line in text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
    again = await AsyncClient().get(f"/tasks/{task['agent_id']}/events", headers={"Last-Event-ID": last})
    return text, again.status_code

text, status = asyncio.run(events())
assert "event: result" in text and "We have read: Help" in text, text
assert status == 204
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_django_guide(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("guides/django.md", deployment.folder)
    (deployment.folder / "settings.py").write_text(SETTINGS)
    django = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(deployment.folder)}
    start_worker(deployment, "myapp.worker")
    run(deployment, "-c", DJANGO, **django)
    run(deployment, "-m", "django", "test", **django)


FLASK = """
import agentexec as ax
from myapp import app as module
from myapp.database import engine, session
from myapp.models import Model, Ticket

Model.metadata.create_all(engine)
client = module.app.test_client()
made = client.post("/tickets", data={"text": "Help"})
assert made.status_code == 202
agent_id = made.json["agent_id"]
assert client.get(f"/tasks/{agent_id}/result").json == {"result": "We have read: Help"}
with session() as db:
    assert db.get_one(Ticket, made.json["ticket"]).answer == "We have read: Help"
session.remove()
assert client.get(f"/tasks/{agent_id}").json["status"] == "complete"
text = client.get(f"/tasks/{agent_id}/events").text
assert "event: result" in text and "We have read: Help" in text, text
last = [line for line in text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
assert client.get(f"/tasks/{agent_id}/events", headers={"Last-Event-ID": last}).status_code == 204
for path in ("", "/result", "/events"):
    assert client.get(f"/tasks/00000000-0000-7000-8000-000000000000{path}").status_code == 404

def fails(*arguments):
    raise ConnectionError
session.commit = fails  # after the enqueue, before the commit
assert client.post("/tickets", data={"text": "lost"}).status_code == 500
assert ax.activity.list(session()).total == 1
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_flask_guide(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("guides/flask.md", deployment.folder)
    url = {"DATABASE_URL": deployment.environment["AGENTEXEC_DATABASE_URL"]}
    start_worker(deployment, "myapp.worker", **url)
    run(deployment, "-c", FLASK, **url)


FASTAPI = """
import asyncio, httpx
from myapp.app import app
from myapp.database import Model, engine
from myapp.together import workers

async def main():
    async with engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)
    web = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=web, base_url="http://web", timeout=30) as client:
        made = (await client.post("/tickets", params={"text": "Help"})).json()
        path = f"/tasks/{made['agent_id']}"
        assert (await client.get(f"{path}/result")).json() == {"result": "We have read: Help"}
        assert (await client.get(path)).json()["status"] == "complete"
        assert (await client.get("/tasks")).json()["total"] == 1
        assert "event: result" in (await client.get(f"{path}/events")).text
        assert (await client.delete(path)).status_code == 204
        unknown = "/tasks/00000000-0000-7000-8000-000000000000"
        codes = [(await client.get(unknown + end)).status_code for end in ("", "/result", "/events")]
        assert [*codes, (await client.delete(unknown)).status_code] == [404] * 4

asyncio.run(main())
"""


@on_targets("embedded", alternates=False)
def test_the_fastapi_guide(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("guides/fastapi.md", deployment.folder)
    url = deployment.environment["AGENTEXEC_DATABASE_URL"].replace("sqlite:", "sqlite+aiosqlite:")
    start_worker(deployment, "myapp.worker", DATABASE_URL=url)
    run(deployment, "-c", FASTAPI, DATABASE_URL=url)


TENANTS = """
import asyncio, httpx
import agentexec as ax
from myapp.app import app

async def main():
    web = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=web, base_url="http://web", timeout=30) as client:
        a, b = {"X-Organization": "a"}, {"X-Organization": "b"}
        agent_id = (await client.post("/research", params={"company": "Acme"}, headers=a)).json()["agent_id"]
        path = f"/tasks/{agent_id}"
        for way in ("", "/result", "/events"):
            assert (await client.get(path + way, headers=b)).status_code == 404, way
        assert (await client.delete(path, headers=b)).status_code == 404
        answer = await client.post(f"/questions/{agent_id}/call_1", params={"yes": True}, headers=b)
        assert answer.status_code == 404
        assert (await client.get("/questions", headers=a)).json() == []
        assert [(await client.get("/tasks", headers=own)).json()["total"] for own in (a, b)] == [1, 0]
        for nobody in ({}, {"X-Organization": ""}):
            assert (await client.get("/tasks", headers=nobody)).status_code == 422
        assert (await client.get(path, headers=a)).json()["status"] == "queued"
        assert (await client.delete(path, headers=a)).status_code == 204

asyncio.run(main())
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_multi_tenancy_guide(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("guides/multi-tenancy.md", deployment.folder)
    run(deployment, "-c", TENANTS)


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_custom_runner_guide(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("guides/custom-runner.md", deployment.folder)
    run(deployment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_loop.py")


WORKER = """
import agentexec as ax

pool = ax.Pool()


@pool.task("double")
def double(agent_id, context: dict) -> int:
    return 2 * context["number"]
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_custom_backend_guide(deploy: Deploy) -> None:
    """The whole suite takes half a minute; tests/integration/state/test_backends.py runs it for the class underneath."""
    deployment = deploy()
    write_files("guides/custom-backend.md", deployment.folder)
    some = "claimed_once or zombie or emptied or pushed_again or told_once or used_again"
    out = run(deployment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", some)
    assert " passed" in out
    (deployment.folder / "worker.py").write_text(WORKER)
    apart = {
        "AGENTEXEC_STATE_BACKEND": "myapp.queue_apart",
        "QUEUE_URL": f"sqlite:///{deployment.folder / 'queue.db'}",
    }
    start_worker(deployment, "worker", **apart)
    done = subprocess.run(
        [str(AGENTEXEC), "enqueue", "double", '{"number": 21}', "--wait"],
        cwd=deployment.folder,
        env={**deployment.environment, **apart},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "42\n", done.stderr
    assert deployment.depth() == 0, "the record's own database has no queue"


MOVED = """
import agentexec as ax
from worker import pool, start

with ax.testing.harness(pool) as harness:
    task = harness.run("summarize", {"names": ["Acme", "Globex"]})
    assert task.result == "Acme makes anvils.\\nGlobex makes anvils.", task
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_migration_guide(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("migrating.md", deployment.folder)
    run(deployment, "-c", MOVED)

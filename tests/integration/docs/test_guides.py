"""Guides followed by their own words, from an empty folder, with only the packages that they name."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agentexec as ax
from docs.checks import ROOT
from examples.mock_openai import MockOpenAI, call, say
from examples.mock_openai import Step as MockStep
from tests.deployment import Deploy, Deployment, on_targets
from tests.guides import Environments, Reader, Step, write_files
from tests.responses_server import Behavior, finish_answers, ledger_of, message, responses_process
from tests.waiting import patient

AGENTEXEC = Path(sys.executable).with_name("agentexec")

Follow = Callable[..., Reader]

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """Environments that the processes of this run share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "environments"
    folder.mkdir(exist_ok=True)
    return Environments(folder)


@pytest.fixture
def follow(environments: Environments, tmp_path: Path) -> Iterator[Follow]:
    readers: list[Reader] = []

    def follow(page: str, *unchecked: str, until: str | None = None) -> Reader:
        folder = tmp_path / "empty"
        folder.mkdir()
        readers.append(Reader(folder, environments, unchecked=unchecked))
        return readers[-1].follow(page, until=until)

    yield follow
    for reader in readers:
        reader.close()


def run(deployment: Deployment, *arguments: str, **environment: str) -> str:
    """Return the output of `python …` in the folder of a deployment; it must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=deployment.folder,
        env={**deployment.environment, **environment},
        capture_output=True,
        text=True,
        timeout=patient(100),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_worker(deployment: Deployment, module: str, **environment: str) -> None:
    deployment.spawn([str(AGENTEXEC), "worker", module], **environment)


DJANGO = """
import asyncio, os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
from django.conf import settings
from django.core.management import call_command
from django.test import AsyncClient, Client

import agentexec as ax
from myapp.models import Ticket

settings.ALLOWED_HOSTS = ["*"]
client = Client()
number = client.post("/tickets", {"text": "Help"}).json()["ticket"]
[task] = client.get(f"/tickets/{number}/tasks").json()["items"]
assert ax.get_result_sync(task["agent_id"], timeout=20) == "We have read: Help"
assert Ticket.objects.get(pk=number).answer == "We have read: Help"
assert ax.get_result_sync(ax.enqueue_sync("count_tickets"), timeout=20) == number

lost = Ticket.objects.create(text="forgotten")
Ticket.objects.update(created_at="2000-01-01T00:00Z")
for _ in range(2):
    call_command("enqueue_missing")
assert client.get(f"/tickets/{lost.pk}/tasks").json()["total"] == 1

async def again(last):
    at = f"/tasks/{task['agent_id']}/events"
    response = await AsyncClient().get(at, headers={"Last-Event-ID": last})
    return response.status_code

stream = list(ax.activity.stream(task["agent_id"]))
assert asyncio.run(again(stream[-1].id)) == 204
assert client.get("/tasks/00000000-0000-7000-8000-000000000000").status_code == 404
"""

FLASK = """
import agentexec as ax
from myapp import app as module
from myapp.database import session
from myapp.models import Ticket

client = module.app.test_client()
made = client.post("/tickets", data={"text": "Help"})
assert made.status_code == 202
agent_id = made.json["agent_id"]
assert client.get(f"/tasks/{agent_id}/result").json == {"result": "We have read: Help"}
with session() as db:
    assert db.get_one(Ticket, made.json["ticket"]).answer == "We have read: Help"
session.remove()
text = client.get(f"/tasks/{agent_id}/events").text
last = [line for line in text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
assert client.get(f"/tasks/{agent_id}/events", headers={"Last-Event-ID": last}).status_code == 204
assert client.get(f"/tasks/{agent_id}/events", headers={"Last-Event-ID": "garbage"}).status_code == 422
for path in ("", "/result", "/events"):
    assert client.get(f"/tasks/00000000-0000-7000-8000-000000000000{path}").status_code == 404

before = ax.activity.list(session()).total
def fails(*arguments):
    raise ConnectionError
session.commit = fails  # after the enqueue, before the commit
assert client.post("/tickets", data={"text": "lost"}).status_code == 500
assert ax.activity.list(session()).total == before
"""

FASTAPI = """
import asyncio, urllib.error, urllib.request

WEB, ANY = "http://127.0.0.1:PORT", "00000000-0000-7000-8000-000000000000"

def code(path, method="GET", **headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(WEB + path, None, headers, method=method)).status
    except urllib.error.HTTPError as error:
        return error.code

for end in ("", "/result", "/events"):
    assert code(f"/tasks/{ANY}{end}") == 404, end
    assert code(f"/tasks/garbage{end}") == 422, end
assert code(f"/tasks/{ANY}", "DELETE") == 404
assert code("/tasks/AGENT_ID", "DELETE") == 204
assert code("/tasks/AGENT_ID/events", **{"Last-Event-ID": "garbage"}) == 422
made = urllib.request.urlopen(urllib.request.Request(WEB + "/tickets?text=Hello", method="POST")).read().decode()
agent_id = made.split('"')[-2]
answer = urllib.request.urlopen(f"{WEB}/tasks/{agent_id}/result").read().decode()
assert answer == '{"result":"We have read: Hello"}', "the workers beside the application run tasks"
"""


@pytest.mark.parametrize(("page", "program"), [("fastapi", FASTAPI), ("django", DJANGO), ("flask", FLASK)])
def test_the_guide_of_a_web_framework(follow: Follow, page: str, program: str) -> None:
    reader = follow(f"guides/{page}.md")
    reader.run(Step(f"python -c {shlex.quote(program.replace('PORT', '8000'))}"))


WORKER = """
import agentexec as ax

pool = ax.Pool()


@pool.task("double")
def double(agent_id, context: dict) -> int:
    return 2 * context["number"]
"""

SCRIPTS: dict[str, list[MockStep]] = {
    "approvals": [call("send_email", to="ann@example.com", text="Yes."), say("Ann's letter is answered.")],
    "batches": [say('{"response": 7}')],
    "conversations": [say("It is on its way.")],
    "durable-runs": [say("Acme makes anvils.")],
    "fork": [call("order_anvil", company="Acme"), say("I ordered an anvil of Acme.")],
    "live-events": [call("founded", company="Acme"), say("Acme makes anvils.")],
    "replay-tests": [call("order_anvil", company="Acme"), say("I ordered an anvil of Acme.")],
    "pipelines": [say("Acme makes anvils.")],
}
"""Answers of the model in the guides that call one."""


@pytest.mark.parametrize("page", SCRIPTS)
def test_a_guide_that_calls_a_model(follow: Follow, mock_openai: MockOpenAI, page: str) -> None:
    mock_openai.script(SCRIPTS[page])
    if page == "fork":
        mock_openai.script([say("Ich habe einen Amboss bestellt.")] * 3, when="German")
    if page == "conversations":
        mock_openai.script([say("Tomorrow.")], when="When will it be here?")
    follow(f"guides/{page}.md")


PLAIN = [
    "custom-runner",
    "deploys",
    "fan-out",
    "failures",
    "large-values",
    "monitor",
    "multi-tenancy",
    "order-and-limits",
    "observability",
    "operating",
    "queues",
    "rate-limits",
    "schedules",
    "stopping",
    "testing",
    "waiting",
]


@pytest.mark.parametrize("page", PLAIN)
def test_a_guide_that_needs_no_model(follow: Follow, page: str) -> None:
    follow(f"guides/{page}.md")


def test_the_custom_backend_guide(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole suite takes half a minute; tests/integration/state/test_backends.py runs it for the class underneath."""
    some = "claimed_once or zombie or emptied or pushed_again or told_once or used_again"
    monkeypatch.setenv("PYTEST_ADDOPTS", f"-k '{some}'")
    reader = follow("guides/custom-backend.md")
    (reader.folder / "worker.py").write_text(WORKER)
    for command in (
        "export AGENTEXEC_STATE_BACKEND=myapp.queue_apart QUEUE_URL=sqlite:///queue.db",
        "agentexec worker worker",
    ):
        reader.run(Step(command))
    reader.run(Step("agentexec enqueue double '{\"number\": 21}' --wait", ["…", "42"]))


def test_the_quickstart(follow: Follow, mock_openai: MockOpenAI) -> None:
    """The log of a task whose worker is killed is not compared: tests/faults kills workers."""
    steps = [
        call("report_status", message="Looking up the year", percentage=30),
        call("founded", company="Globex"),
        call("report_status", message="Writing", percentage=80),
        say("Globex makes anvils. It was founded in 1949."),
    ]
    mock_openai.script(steps)
    follow("quickstart.md", "agentexec logs -f", until="Run it on a server")


def test_the_ten_lines_of_the_readme(follow: Follow, mock_openai: MockOpenAI) -> None:
    mock_openai.script([call("report_status", message="Reading", percentage=40), say("Acme makes anvils.")])
    follow("../README.md", until="What it does")


def test_what_init_tells_to_do_next(follow: Follow, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say("Acme makes anvils.")])
    reader = follow("../README.md", until="Try it")
    told = reader.run(Step("agentexec init hello"))
    assert "Then `cd hello`." in told
    reader.run(Step("cd hello"))
    for line in told.split("Next:")[1].splitlines():
        reader.run(Step(line.strip()))
    reader.run(Step("agentexec list", ["…", "…complete…", "…complete…"]))


ELSEWHERE = {
    "deployment": "its commands need Docker; tests/integration/examples/test_deployment_files.py runs its files",
    "postgres": "it has settings alone; tests/faults/test_postgres_limits.py runs a failover, and a server without connections",
    "dynamodb": "its commands need AWS; tests/integration/state/dynamodb_backend runs them on an emulator",
    "mysql": "it has settings alone; tests/integration/state/test_mysql_wakeup.py has what it says of wake-ups",
    "sizing": "it has figures alone, of ./dev bench",
    "redis": "its commands are those of a Redis server",
    "http-api": "tests/integration/web tries each endpoint, and what the guide says of tokens and refusals",
    "dashboard": "its command serves until it is stopped; ui/e2e/dashboard.spec.ts goes through the page",
    "example-app": "tests/integration/examples/test_fastapi_example.py starts the example as its README says",
    "encryption": "its commands make keys, which differ; tests/integration/payloads goes through the settings and commands",
    "mcp": "its command serves until it is stopped; tests/integration/mcp runs its program, and tries every tool",
    "other-front-ends": "tests/faults/test_front_ends.py runs its code with the clients of the front ends",
}
"""Guides without a program to run."""


def test_every_guide_is_followed() -> None:
    followed = {
        "background-responses",
        "budgets",
        "custom-backend",
        "django",
        "fastapi",
        "flask",
        *SCRIPTS,
        *PLAIN,
        *ELSEWHERE,
    }
    assert {file.stem for file in (ROOT / "docs" / "guides").glob("*.md")} == followed


MOVED = """
import agentexec as ax
from worker import pool, start

with ax.testing.harness(pool) as harness:
    task = harness.run("summarize", {"names": ["Acme", "Globex"]})
    assert task.result == "Acme makes anvils.\\nGlobex makes anvils.", task
"""


@on_targets("embedded", alternates=False)
def test_the_migration_guide(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("migrating.md", deployment.folder)
    run(deployment, "-c", MOVED)


BUDGETED = """
import agentexec as ax
from agentexec.llm.prices import ModelPrice
from worker import pool

ax.CONF.model_prices = {"AgentScript": ModelPrice(input=2.5, output=10)}
with ax.testing.harness(pool) as harness:
    harness.model.call_tool("search", {"query": "Acme"}).say("Acme makes anvils.")
    assert harness.run("research", {"company": "Acme"}).result == "Acme makes anvils."
    task = harness.run("research", {"company": "Acme"}, budget="$0.000001")
    assert f"Task {task.agent_id} is at its budget of $0.000001 ($0.00 spent): the next call of" in task.error
    harness.model.say("What I know.")
    task = harness.run("research", {"company": "Acme"}, budget="1 token", on_budget="wrap_up")
    assert task.result == "What I know.", task
    ax.CONF.model_prices = {}
    task = harness.run("research", {"company": "Acme"})
    assert 'has no price; set it in AGENTEXEC_MODEL_PRICES, or give a budget in tokens' in task.error
"""


@on_targets("embedded", alternates=False)
def test_the_guide_on_budgets(deploy: Deploy) -> None:
    deployment = deploy()
    write_files("guides/budgets.md", deployment.folder)
    run(deployment, "-c", BUDGETED)


@on_targets("embedded", alternates=False)
def test_the_guide_on_background_responses(deploy: Deploy) -> None:
    """Its worker is killed while both tasks wait for the provider, and asks for nothing twice."""
    deployment = deploy()
    write_files("guides/background-responses.md", deployment.folder)
    turns = {"gpt-5.2": [[message("Twice a day.")]]}
    with responses_process(Behavior(turns, seconds=600)) as url:
        start_worker(deployment, "worker.py", OPENAI_BASE_URL=url, OPENAI_API_KEY="k")
        asked = ax.enqueue_sync("research", {"question": "How often is high tide?"})
        told = ax.enqueue_sync("summarize", {"text": "High tide comes twice a day."})
        for task in (asked, told):
            deployment.wait_for(
                lambda task=task: "Waiting for background response resp_" in str(deployment.detail(task)),
                timeout=60,
            )
        for worker in deployment.workers():
            worker.kill()
        finish_answers(url)
        for task in (asked, told):
            assert ax.get_result_sync(task, timeout=patient(60)) == "Twice a day."
        assert len(ledger_of(url, "create")) == 2

"""`--app MODULE`: commands use the database and settings that the user's module sets, and say which ones they use."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

import agentexec as ax
from agentexec.cli.app import main
from agentexec.cli.verbs import VERBS, WITHOUT_DATABASE, get_command
from agentexec.runtime import RUNTIME
from tests.deployment import clean_environment, run_agentexec, run_python
from tests.waiting import wait_until

MODULE = """
import atexit
from typing import Any
from uuid import UUID
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
import agentexec as ax

engine = create_engine("sqlite:///agents.db")
ax.Base.metadata.create_all(engine)
pool = ax.Pool(engine=engine, queue_name="of_the_module")
print("printed by the module")

class Company(BaseModel):
    company: str

def cleanup() -> None:
    with Session(engine) as db:
        ax.activity.cancel_pending(db)

atexit.register(cleanup)

@pool.task("research")
async def research(agent_id: UUID, context: Company) -> Company:
    return context
"""

ANY_ID = "0190a6e2-7d4f-7c3a-9d55-0242ac120002"

ARGUMENTS = {
    "monitor": ["--once"],
    "list": [],
    "show": [ANY_ID],
    "logs": [ANY_ID],
    "chat": ["research"],
    "conversations": [],
    "cancel": [ANY_ID],
    "failed": [],
    "retry": [ANY_ID],
    "budget": [ANY_ID, "$5.00"],
    "fork": [ANY_ID, "--at", "1"],
    "export": [ANY_ID],
    "check": [],
    "approvals": [],
    "approve": [ANY_ID, "call"],
    "reject": [ANY_ID, "call"],
    "cancel-pending": ["--yes"],
    "schedules": [],
    "queues": [],
    "move-queue": ["--to", "redis://127.0.0.1:1"],
    "webhooks": [],
    "prune": ["--older-than", "1d", "--yes"],
    "rotate-keys": [],
}
"""Arguments of the commands that read or change tasks."""


class Done(NamedTuple):
    """End of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run commands in this process and an empty folder; what their modules set is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(RUNTIME, "only_reads_program", False)
    monkeypatch.setattr(ax.CONF, "encryption_keys", base64.urlsafe_b64encode(bytes(32)).decode())
    known, settings = set(sys.modules), ax.CONF.model_copy()
    RUNTIME.close()

    def run(*arguments: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.object(sys, "argv", ["agentexec", *arguments]),
            patch("atexit.register"),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main()
        return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())

    yield run
    RUNTIME.close()
    for name in ("queue_name", "queues", "worker_module", "database_url"):
        setattr(ax.CONF, name, getattr(settings, name))
    ax.CONF.__pydantic_fields_set__.clear()
    ax.CONF.__pydantic_fields_set__.update(settings.model_fields_set)
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def shop(folder: Path, text: str = MODULE) -> None:
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "worker.py").write_text(text)


def test_every_command_on_tasks_uses_the_database_of_the_module(command: Command, tmp_path: Path) -> None:
    # The dashboard serves until it is stopped: tests/integration/web/test_dashboard.py.
    assert {*ARGUMENTS, "enqueue", "migrate", "dashboard", "mcp", *WITHOUT_DATABASE} == set(VERBS)
    shop(tmp_path)
    done = command("enqueue", "research", '{"company": "Acme"}', "--app", "shop.worker")
    agent_id = done.out.strip()
    assert done.code == 0, done.err
    assert command("show", agent_id, "--app", "shop.worker").code == 0
    for verb, arguments in ARGUMENTS.items():
        done = command(verb, *arguments, "-A", "shop.worker:pool")
        assert "agentexec.db" not in done.out + done.err
        assert "lacks tables" not in done.err
        assert f"Importing shop.worker:pool from {tmp_path / 'shop' / 'worker.py'}." in done.err
        if verb == "list":
            assert agent_id in done.out
    assert not (tmp_path / "agentexec.db").exists()


def test_a_command_uses_the_module_that_the_settings_name_and_says_so(
    command: Command, tmp_path: Path
) -> None:
    shop(tmp_path)
    ax.CONF.worker_module = "shop.worker"
    without = command("list", "--app", "")
    assert without.code == 5 and "Importing" not in without.err
    done = command("list")
    assert (done.code, done.err.count("No tasks match.")) == (0, 1), done.err
    assert f"Importing shop.worker from {tmp_path}/shop/worker.py, as AGENTEXEC_WORKER_MODULE" in done.err
    ax.CONF.worker_module = "shop.missing"
    failed = command("list")
    assert failed.code == 2
    assert "There is no module shop.missing." in failed.err and '--app ""' in failed.err


def test_what_the_module_prints_does_not_mix_with_the_answer(command: Command, tmp_path: Path) -> None:
    shop(tmp_path)
    done = command("list", "--json", "-A", "shop.worker")
    assert json.loads(done.out)["items"] == []
    assert "printed by the module" in done.err


def test_tasks_go_to_the_queue_of_the_modules_pool(command: Command, tmp_path: Path) -> None:
    shop(tmp_path)
    command("enqueue", "research", '{"company": "a"}', "-A", "shop.worker")
    command("enqueue", "elsewhere", "-A", "shop.worker")
    command("enqueue", "named", "-Q", "another", "-A", "shop.worker")
    with sqlite3.connect(tmp_path / "agents.db") as db:
        queues = dict(db.execute("SELECT agent_type, queue FROM agentexec_activity").fetchall())
    assert queues == {"research": "of_the_module", "elsewhere": "of_the_module", "named": "another"}


ENGINES = {
    "async": 'from sqlalchemy.ext.asyncio import create_async_engine\npool = ax.Pool(engine=create_async_engine("sqlite+aiosqlite:///agents.db"))',
    "factory": 'def create_pool():\n    return ax.Pool(database_url="sqlite:///agents.db")',
    "configured": 'pool = ax.Pool()\nax.configure(database_url="sqlite:///agents.db")',
    "setting": 'ax.CONF.database_url = "sqlite:///agents.db"\npool = ax.Pool()',
}


@pytest.mark.parametrize("text", ENGINES.values(), ids=ENGINES)
def test_the_database_may_be_set_in_every_way_that_workers_allow(
    text: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "own_worker.py").write_text(f"import agentexec as ax\n{text}\n")
    assert command("migrate", "-A", "own_worker.py").code == 0
    assert command("list", "-A", "own_worker").code == 0
    assert (tmp_path / "agents.db").exists() and not (tmp_path / "agentexec.db").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(url: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "own_worker.py").write_text(f"import agentexec as ax\npool = ax.Pool(database_url={url!r})\n")
    done = command("list", "-A", "own_worker")
    assert done.code == 2
    assert "lives in one process only" in done.err


@pytest.mark.parametrize("call", ["pool.run()", "pool.start()"])
def test_a_module_that_starts_workers_is_refused(call: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "own_worker.py").write_text(f"import agentexec as ax\npool = ax.Pool()\n{call}\n")
    done = command("list", "-A", "own_worker")
    assert done.code == 2
    assert "under `if __name__" in done.err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os\nos.environ['NO_SUCH']\n", "own_worker.py, line 2"),
        ("def (:\n", "own_worker.py, line 1"),
        ("import agentexec\n", "neither `pool` nor `create_pool()`"),
    ],
    ids=["error", "syntax", "no-pool"],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    text: str, reason: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "own_worker.py").write_text(text)
    done = command("list", "-A", "own_worker")
    assert (done.code, done.out) == (2, "")
    assert reason in done.err and "Traceback" not in done.err


# ---- without a module --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ARGUMENTS)
def test_a_command_that_reads_creates_no_database(verb: str, command: Command, tmp_path: Path) -> None:
    done = command(verb, *ARGUMENTS[verb])
    assert done.code == 5
    assert f"There is no database sqlite:///{tmp_path}/agentexec.db" in done.err
    assert "name its module with --app" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["enqueue", "greet"], ["migrate"]], ids=["enqueue", "migrate"])
def test_a_command_that_creates_a_database_nobody_named_says_so(
    arguments: list[str], command: Command, tmp_path: Path
) -> None:
    sentence = f"Creating the database sqlite:///{tmp_path}/agentexec.db, as no setting names one."
    first, second = command(*arguments), command(*arguments)
    assert (first.code, second.code) == (0, 0)
    assert sentence in first.err and "name its module with --app" in first.err
    assert "Creating" not in second.err


@pytest.mark.parametrize("arguments", [["list"], ["enqueue", "greet"], ["migrate", "--check"]], ids=" ".join)
def test_only_migrate_creates_a_database_that_the_settings_name(
    arguments: list[str], command: Command, tmp_path: Path
) -> None:
    ax.CONF.database_url = "sqlite:///named.db"
    done = command(*arguments)
    assert done.code == 5 and f"There is no database sqlite:///{tmp_path}/named.db" in done.err
    assert list(tmp_path.iterdir()) == []
    assert command("migrate").code == 0


def test_who_waits_for_a_worker_reads_which_database_it_is(command: Command, tmp_path: Path) -> None:
    done = command("enqueue", "greet", "--wait", "--timeout", "0.1")
    assert done.code == 1
    assert f"of sqlite:///{tmp_path}/agentexec.db" in done.err and "--app" in done.err


def test_the_advice_to_migrate_names_the_module(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own_worker.py").write_text(
        'import agentexec as ax\npool = ax.Pool(database_url="sqlite:///own.db")\n'
    )
    missing = command("list", "-A", "own_worker")
    (tmp_path / "own.db").touch()
    empty = command("list", "-A", "own_worker")
    for done in (missing, empty):
        assert done.code == 5
        assert f"sqlite:///{tmp_path}/own.db" in done.err
        assert "run `agentexec migrate --app own_worker`" in done.err


# ---- processes ---------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_commands_leave_the_exit_handlers_of_the_module_to_workers(tmp_path: Path) -> None:
    shop(tmp_path)
    enqueued = run_agentexec(
        "enqueue", "research", '{"company": "Acme"}', cwd=tmp_path, AGENTEXEC_WORKER_MODULE="shop.worker"
    )
    assert enqueued.returncode == 0, enqueued.stderr
    checked = run_agentexec("doctor", "shop.worker", "--json", cwd=tmp_path)
    found = {finding["name"]: finding for finding in json.loads(checked.stdout)}
    assert found["module"]["text"] == "shop.worker has the tasks research"
    assert f"sqlite:///{tmp_path}/agents.db" in found["database"]["text"]
    assert "1 task(s) in of_the_module" in found["queue"]["text"]
    with sqlite3.connect(tmp_path / "agents.db") as db:
        assert db.execute("SELECT status FROM agentexec_activity").fetchall() == [("QUEUED",)]
    assert not (tmp_path / "agentexec.db").exists()


def test_the_doctor_survives_a_module_that_ends_its_process(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import os\nos._exit(7)\n")
    done = run_agentexec("doctor", "ends", cwd=tmp_path)
    assert done.returncode == 1
    assert "Cannot load ends: it ends its process with exit code 7." in done.stdout


@pytest.mark.thorough
def test_commands_import_the_agents_sdk_for_the_module_only(tmp_path: Path) -> None:
    shop(tmp_path)
    program = """
import sys
from agentexec.cli.app import main
sys.argv = ["agentexec", "list", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print(end.code, "agents" in sys.modules, file=sys.stderr)
"""
    done = run_python("-c", program, "--app", "shop.worker", cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == "0 False"


@pytest.mark.thorough
def test_nothing_in_the_current_folder_runs_unless_it_is_named(tmp_path: Path) -> None:
    for name in (
        "json",
        "queue",
        "typing",
        "sqlalchemy",
        "redis",
        "hiredis",
        "usercustomize",
        "worker",
        "agents",
    ):
        (tmp_path / f"{name}.py").write_text(f"open('ran_{name}', 'w')\nraise SystemExit('{name}.py ran')\n")
    done = run_agentexec("enqueue", "greet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_agentexec("doctor", cwd=tmp_path).returncode == 0
    assert [file.name for file in tmp_path.glob("ran_*")] == []


def test_a_state_backend_of_the_current_folder_is_announced(tmp_path: Path) -> None:
    (tmp_path / "own_backend.py").write_text(
        "def create(settings, engine):\n    raise RuntimeError('used')\n"
    )
    (tmp_path / ".env").write_text("AGENTEXEC_STATE_BACKEND=own_backend\n")
    done = run_agentexec("enqueue", "greet", cwd=tmp_path)
    sentence = f"The state backend is own_backend from {tmp_path}/own_backend.py, as AGENTEXEC_STATE_BACKEND in .env says."
    assert sentence in done.stderr
    assert "RuntimeError: used" in done.stderr


@pytest.mark.thorough
def test_workers_and_commands_meet_in_a_folder_with_misleading_names(tmp_path: Path) -> None:
    for name in ("json", "queue", "typing", "sqlalchemy", "redis", "agents", "psutil"):
        (tmp_path / f"{name}.py").write_text(f"open('ran_{name}', 'w')\nraise SystemExit('{name}.py ran')\n")
    (tmp_path / "names.py").write_text("GREETING = 'Hello'\n")
    (tmp_path / "own_worker.py").write_text(
        "import json\nimport queue\nimport agentexec as ax\nfrom names import GREETING\n"
        "ax.CONF.database_url = 'sqlite:///own.db'\n"
        "ax.Base.metadata.create_all(ax.get_engine())\n"
        "pool = ax.Pool()\n"
        "@pool.task('greet')\nasync def greet(agent_id, context: dict) -> str:\n"
        "    return GREETING + json.dumps(context)\n"
    )
    (tmp_path / ".env").write_text("AGENTEXEC_WORKER_MODULE=own_worker\nAGENTEXEC_NUM_WORKERS=1\n")
    log = tmp_path / "worker.log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "agentexec", "worker"],
            cwd=tmp_path,
            env=clean_environment(),
            stderr=output,
        )
    try:
        wait_until(lambda: "on queue" in log.read_text() or worker.poll() is not None, timeout=60)
        done = run_agentexec("enqueue", "greet", "{}", "--wait", "--timeout", "30", cwd=tmp_path, timeout=60)
        assert done.stdout == "Hello{}\n", done.stderr + log.read_text()
    finally:
        worker.terminate()
        worker.wait(30)
    sentence = f"Importing own_worker from {tmp_path}/own_worker.py, as AGENTEXEC_WORKER_MODULE in .env says."
    assert sentence in log.read_text() and sentence in done.stderr
    assert [file.name for file in tmp_path.glob("ran_*")] == []
    assert not (tmp_path / "agentexec.db").exists()


def test_help_needs_no_module(command: Command) -> None:
    ax.CONF.worker_module = "missing"
    assert "--app" in command("list", "--help").out
    assert get_command("version").__name__ == "run"

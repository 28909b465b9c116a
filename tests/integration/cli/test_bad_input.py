"""Bad input gets one sentence that says what to do, a documented exit code, no traceback by default, and no password."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

import agentexec as ax
from tests.deployment import Deploy, clean_environment, on_targets, run_agentexec, run_in_process, run_python
from tests.servers import free_port
from tests.waiting import patient

POOL = "import agentexec as ax\npool = ax.Pool()\n"

MODULES = {
    "no_pool.py": "import agentexec as ax\n",
    "fine.py": POOL,
    "wrong_pool.py": "pool = 42\n",
    "bad_import.py": "import not_installed_anywhere\n",
    "raises.py": "raise RuntimeError('the key is missing')\n",
    "exits.py": "import sys\nsys.exit('no license')\n",
    "bad_syntax.py": "def (:\n",
    "bad_handler.py": POOL + "@pool.task('t')\nasync def handler(wrong): ...\n",
    "twice.py": POOL
    + "@pool.task('t')\nasync def a(agent_id, context): ...\n@pool.task('t')\nasync def b(agent_id, context): ...\n",
    "factory_raises.py": "def create_pool():\n    raise RuntimeError('the key is missing')\n",
    "no_variable.py": "import os\nos.environ['NO_SUCH_VARIABLE']\n",
    "no_file.py": "open('no_such_file')\n",
    "in_memory.py": "import agentexec as ax\npool = ax.Pool(database_url='sqlite://')\n",
    "lacking_backend.py": "class B: push = claim = ping = lambda *a, **k: None\ndef create(settings, engine): return B()\n",
    "empty_backend.py": "",
}

ANY_ID = "0190a6e2-7d4f-7c3a-9d55-0242ac120002"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, program in MODULES.items():
        (tmp_path / name).write_text(program)
    return tmp_path


COMPLAINTS = {
    "nowhere": "There is no module nowhere. Run from the folder that holds it",
    "nowhere.worker": "There is no module nowhere.worker",
    "nowhere.py": "There is no file",
    "fine..x": "no module",
    "no_pool": "no_pool has neither `pool` nor `create_pool()`. Add `pool = ax.Pool()`",
    "no_pool.py": "has neither `pool` nor `create_pool()`",
    "fine:tasks": "fine has no attribute 'tasks'",
    "wrong_pool": "wrong_pool:pool is int, not an ax.Pool",
    "bad_import": "bad_import cannot be imported: No module named 'not_installed_anywhere'",
    "raises": "raises cannot be imported: RuntimeError: the key is missing ({folder}/raises.py, line 1).",
    "no_variable": "no_variable cannot be imported: KeyError: 'NO_SUCH_VARIABLE' ({folder}/no_variable.py, line 2).",
    "no_file": "No such file or directory: 'no_such_file' ({folder}/no_file.py, line 1).",
    "exits.py": "cannot be imported: SystemExit: no license",
    "bad_syntax": "bad_syntax.py, line 1",
    "bad_handler": "The handler of task t lacks the parameter agent_id",
    "twice": "Task t is registered twice",
    "factory_raises": "RuntimeError: the key is missing ({folder}/factory_raises.py, line 2).",
}

LOAD = """
import sys
from agentexec.errors import AgentexecError
from agentexec.worker.loading import load
from agentexec.worker.target import Target

for text in sys.argv[1:]:
    try:
        print(0, load(Target.parse(text)))
    except AgentexecError as error:
        print(error.exit_code, error)
"""


def test_a_module_without_a_usable_pool_is_refused_with_the_reason(folder: Path) -> None:
    done = run_python("-c", LOAD, *COMPLAINTS, cwd=folder)
    assert done.stderr == ""
    answers = done.stdout.splitlines()
    assert len(answers) == len(COMPLAINTS), "one line each"
    for answer, (module, complaint) in zip(answers, COMPLAINTS.items(), strict=True):
        assert answer.startswith("2 "), module
        assert complaint.format(folder=folder).lower() in answer.lower()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("", "Name the module that holds your pool, like `agentexec worker myapp.worker`."),
        ("nowhere", "There is no module nowhere"),
        ("no_pool.py", "has neither `pool` nor `create_pool()`"),
        ("factory_raises", "the key is missing"),
        ("in_memory", "Workers need a database that several processes can open"),
    ],
)
def test_a_worker_without_a_usable_pool_stops_with_one_line(
    folder: Path, module: str, complaint: str
) -> None:
    done = run_agentexec("worker", *([module] if module else []), cwd=folder)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    lines = [line for line in done.stderr.splitlines() if "Importing" not in line]
    assert len(lines) == 1, done.stderr


@pytest.mark.thorough
def test_a_traceback_is_shown_on_request(folder: Path) -> None:
    done = run_agentexec("worker", "raises", "--traceback", cwd=folder)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "raises.py" in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["enqueue", "work", "{not json"], "The context is not valid JSON"),
        (["enqueue", "work", "[1]"], "The context must be a JSON object"),
        (["enqueue", "work", "@nowhere.json"], "Cannot read the file nowhere.json"),
        (["enqueue", "work", "--priority", "urgent"], "--priority must be high or low"),
        (["enqueue", "work", "--metadata", "tenant"], "--metadata takes KEY=VALUE"),
        (["enqueue", ""], "NAME must not be empty"),
        (
            ["enqueue", "work", "--idempotency-key", "\udcff"],
            "--idempotency-key holds half of a surrogate pair",
        ),
        (["enqueue", "work", "--delay", "inf"], "Invalid value for '--delay'"),
        (["enqueue", "work", "--wait", "--timeout", "nan"], "--timeout must be a number"),
        (["prune", "--older-than", "99999999999999d"], "--older-than takes at most 34722d"),
        (["list", "--page", "9223372036854775808"], "Invalid value for '--page'"),
        (["list", "--text", "%" * 48_000], "--text has at most 500 characters"),
        (["monitor", "--once", "--text", "%" * 48_000], "--text has at most 500 characters"),
        (
            ["list", *(f"-mkey{number}=1" for number in range(200))],
            "--metadata has at most 64 keys; this mapping has 200",
        ),
        (["enqueue"], "Missing argument"),
        (["enqueue", "work", "--delay", "soon"], "Invalid value for '--delay'"),
        (["worker", "fine", "--workers", "0"], "workers"),
        (["worker", "fine", "--graceful-timeout", "-1"], "graceful"),
        (["worker", "fine", "-Q", "mails,,reports"], "must not be empty"),
        (["worker", "fine", "--log-level", "LOUD"], "AGENTEXEC_LOG_LEVEL cannot be used"),
        (["dance"], "No such command"),
        (["migrate", "--no-such-option"], "No such option"),
        (["migrate", "--partition", "hourly"], "give one of daily, weekly, monthly"),
        (["migrate", "--partition", "daily"], "--partition is for PostgreSQL alone"),
        (["migrate", "--partition", "daily", "--sql"], "takes no other option"),
        (["enqueue", "work", '{"text": "' + "x" * 2000 + '"}'], "AGENTEXEC_MAX_PAYLOAD_BYTES=1024"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_command_line_with_bad_input(folder: Path, arguments: list[str], complaint: str) -> None:
    done = run_agentexec(*arguments, cwd=folder, AGENTEXEC_MAX_PAYLOAD_BYTES="1024")
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "agentexec.db").exists() or "enqueue" in arguments


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("verb", "variable", "value", "complaint"),
    [
        (["worker", "fine"], "AGENTEXEC_NUM_WORKERS", "many", "AGENTEXEC_NUM_WORKERS cannot be used"),
        (["enqueue", "work"], "AGENTEXEC_NUM_WORKERS", "many", "AGENTEXEC_NUM_WORKERS cannot be used"),
        (["enqueue", "work"], "AGENTEXEC_MODEL_PRICES", "{hunter2", "AGENTEXEC_MODEL_PRICES cannot be used"),
        (["worker", "fine"], "DATABASE_URL", "what://hunter2@is-this", "no SQLAlchemy dialect for what"),
        (["enqueue", "work"], "DATABASE_URL", "hunter2", "The database URL cannot be read"),
        (["migrate"], "DATABASE_URL", "hunter2", "The database URL cannot be read"),
        (["list"], "DATABASE_URL", "sqlite://file.db", "names a host, but SQLite's databases are files"),
        (["list"], "DATABASE_URL", "postgresql://host:hunter2/name", "The database URL cannot be read"),
    ],
)
def test_a_setting_with_a_bad_value(
    folder: Path, verb: list[str], variable: str, value: str, complaint: str
) -> None:
    done = run_agentexec(*verb, cwd=folder, **{variable: value})
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_help_does_not_depend_on_the_settings(folder: Path) -> None:
    done = run_agentexec("--help", cwd=folder, AGENTEXEC_NUM_WORKERS="many")
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_redis_url_that_cannot_be_read(folder: Path) -> None:
    done = run_agentexec("worker", "fine", cwd=folder, AGENTEXEC_REDIS_URL="http://u:hunter2@localhost")
    assert done.returncode == 2, done.stderr
    assert (
        "AGENTEXEC_REDIS_URL cannot be used: it starts with http://, and agentexec speaks redis://"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("backend", "complaint"),
    [
        ("no_such_backend", "AGENTEXEC_STATE_BACKEND names no_such_backend, which cannot be imported"),
        ("empty_backend", "which lacks create(settings, engine)"),
        ("lacking_backend", r"The state backend of lacking_backend lacks transactional, .*renew.*; see"),
        ("agentexec.state.redis_backend", "set AGENTEXEC_REDIS_URL"),
        ("agentexec.state.memory_backend", "lives in one process and is for tests"),
    ],
)
def test_a_state_backend_that_lacks_something_is_refused_at_start(
    folder: Path, backend: str, complaint: str
) -> None:
    done = run_agentexec(
        "worker", "fine", cwd=folder, AGENTEXEC_STATE_BACKEND=backend, PYTHONPATH=str(folder)
    )
    assert done.returncode == 2, done.stderr
    assert re.search(complaint if ".*" in complaint else re.escape(complaint), done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_state_backend_of_the_project_is_found_by_every_command(folder: Path) -> None:
    (folder / "our_backend.py").write_text("from agentexec.state.sql_backend import create as create\n")
    command = Path(sys.executable).with_name(
        "agentexec"
    )  # a script, which does not search the current folder
    variables = clean_environment(AGENTEXEC_STATE_BACKEND="our_backend")
    done = subprocess.run(
        [command, "enqueue", "work"], cwd=folder, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def unreachable_database(port: int) -> dict[str, str]:
    return {"AGENTEXEC_DATABASE_URL": f"postgresql://someone:hunter2@127.0.0.1:{port}/app?password=hunter2"}


def unreachable_redis(port: int) -> dict[str, str]:
    return {"AGENTEXEC_REDIS_URL": f"redis://someone:hunter2@127.0.0.1:{port}/0"}


@pytest.mark.thorough
@pytest.mark.parametrize("servers_away", [unreachable_database, unreachable_redis])
def test_a_worker_gives_up_on_servers_it_never_reached(
    folder: Path, servers_away: Callable[[int], dict[str, str]]
) -> None:
    port = free_port()
    started = time.monotonic()
    done = run_agentexec("worker", "fine", cwd=folder, AGENTEXEC_CONNECT_TIMEOUT="2", **servers_away(port))
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - started < patient(15)
    assert f"127.0.0.1:{port}" in done.stderr
    assert done.stderr.count(f"127.0.0.1:{port}") == 2, "one line when it waits, one when it gives up"
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    "arguments",
    [["enqueue", "work"], ["migrate"], ["cancel", ANY_ID], ["cancel-pending", "--yes"]],
    ids=" ".join,
)
def test_a_command_says_which_database_it_cannot_reach(folder: Path, arguments: list[str]) -> None:
    port = free_port()
    done = run_agentexec(*arguments, cwd=folder, **unreachable_database(port))
    assert done.returncode == 3, done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    "arguments", [["enqueue", "work"], ["cancel", ANY_ID], ["cancel-pending", "--yes"]], ids=" ".join
)
def test_a_command_on_a_database_without_tables_says_to_migrate(folder: Path, arguments: list[str]) -> None:
    done = run_agentexec(*arguments, cwd=folder, AGENTEXEC_DATABASE_URL="sqlite:///empty.db")
    assert done.returncode == 5, done.stderr
    assert "agentexec migrate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_file_that_is_not_a_database(folder: Path) -> None:
    (folder / "text.db").write_text("This is not a database. " * 100)
    variables = {"AGENTEXEC_DATABASE_URL": "sqlite:///text.db", "AGENTEXEC_CONNECT_TIMEOUT": "1"}
    done = run_agentexec("worker", "fine", cwd=folder, **variables)
    assert done.returncode in (2, 3), done.stderr
    assert "text.db" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_module_that_crashes_the_interpreter(folder: Path) -> None:
    (folder / "crashes.py").write_text("import os\nos.abort()\n")
    done = run_agentexec("worker", "crashes", cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "was killed by SIGABRT before it had loaded crashes" in done.stderr


@pytest.mark.thorough
@on_targets("valkey+sqlite")
def test_a_worker_waits_for_a_redis_that_starts_late(deploy: Deploy) -> None:
    deployment = deploy(connect_timeout=20)
    deployment.broker.stop()
    supervisor = deployment.start(ready=False)
    deployment.wait_for(lambda: "Waiting for it" in deployment.log)
    deployment.broker.start()
    deployment.wait_for(lambda: "on queue" in deployment.log)
    assert deployment.log.count("cannot be used") == 1
    assert deployment.stop(supervisor) == 0


@pytest.mark.thorough
@on_targets("embedded")
def test_a_bad_task_in_the_queue_harms_no_other(deploy: Deploy) -> None:
    deployment = deploy()
    invalid = ax.enqueue_sync("work", {"no": "key"})
    broken = deployment.enqueue("work", "broken")
    with ax.get_engine().begin() as connection:
        connection.execute(
            text("UPDATE agentexec_activity SET context = '{torn' WHERE context LIKE '%broken%'")
        )
    good = deployment.enqueue("work", "good")
    deployment.start()
    assert ax.get_result_sync(good, patient(10)) == "good"
    deployment.wait_for_ends([invalid, broken])
    errors = [deployment.detail(task).error or "" for task in (invalid, broken)]
    assert "The context of task work is not valid: key: Field required" in errors[0]
    assert "The context of task work is not valid: Invalid JSON" in errors[1]
    assert deployment.endings([invalid, broken]) == [["error"]] * 2
    assert "Traceback" not in deployment.log


@on_targets("embedded")
def test_errors_name_options_as_they_were_typed(deploy: Deploy) -> None:
    deployment = deploy()
    for arguments, complaint in {
        ("fork", ANY_ID, "--at", "0"): "agentexec: --at must be the number of a turn, 1 or more, not 0.",
        ("retry", ANY_ID, "--budget", "2 euros"): "agentexec: --budget: '2 euros' is not a budget;",
        ("retry", ANY_ID, "--from", "0"): "agentexec: --from must be the number of a turn, 1 or more, not 0.",
    }.items():
        code, _, errors = run_in_process(deployment, *arguments)
        assert (code, complaint in errors) == (2, True), errors

"""Workers start and stop: from the command line, from a user's program, and in the background."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap

import psutil
import pytest

import agentexec as ax
from agentexec.worker.template import GC_THRESHOLDS
from tests.deployment import MODULE, Deploy, Deployment, all_exited, on_targets, run_agentexec
from tests.waiting import patient

TASK = """
from uuid import UUID
from pydantic import BaseModel
import agentexec as ax

class Greeting(BaseModel):
    name: str

{pool}
"""

HANDLER = """
@pool.task("greet")
async def greet(agent_id: UUID, context: Greeting) -> str:
    return f"Hello {context.name}"
"""

MODULE_WITH_POOL = TASK.format(pool="pool = ax.Pool()") + HANDLER
MODULE_WITH_WORKERS = TASK.format(pool="workers = ax.Pool()\npool = workers") + HANDLER + "\ndel pool\n"
MODULE_WITH_FACTORY = TASK.format(pool="def create_pool():\n    pool = ax.Pool()") + (
    textwrap.indent(HANDLER, "    ") + "    return pool\n"
)


def write(deployment: Deployment, path: str, text: str) -> None:
    file = deployment.folder / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def greeted() -> str:
    return ax.get_result_sync(ax.enqueue_sync("greet", {"name": "Acme"}), 15)


def agentexec_worker(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agentexec", "worker", *arguments]


# ---- place of the pool -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "argument"),
    [
        ({"tasks.py": MODULE_WITH_POOL}, "tasks"),
        pytest.param({"tasks.py": MODULE_WITH_WORKERS}, "tasks:workers", marks=pytest.mark.thorough),
        pytest.param({"sub/tasks.py": MODULE_WITH_FACTORY}, "sub/tasks.py", marks=pytest.mark.thorough),
        (
            {
                "app/__init__.py": "",
                "app/pool.py": MODULE_WITH_POOL,
                "app/worker.py": "from .pool import pool\n",
            },
            "app.worker",
        ),
        pytest.param({"tasks.py": MODULE_WITH_FACTORY}, "tasks:create_pool", marks=pytest.mark.thorough),
    ],
    ids=["module", "attribute", "factory in a file", "package with relative imports", "named factory"],
)
@on_targets("embedded", alternates=False)
def test_a_pool_is_found_where_it_is(deploy: Deploy, files: dict[str, str], argument: str) -> None:
    deployment = deploy()
    for path, text in files.items():
        write(deployment, path, text)
    supervisor = deployment.spawn(agentexec_worker(argument))
    assert f"agentexec worker {argument}" in " ".join(psutil.Process(supervisor.pid).cmdline())
    assert greeted() == "Hello Acme"
    assert deployment.stop() == 0


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_an_environment_variable_can_name_the_module_and_workers_collect_less_garbage(deploy: Deploy) -> None:
    deployment = deploy()
    write(
        deployment,
        "tasks.py",
        MODULE_WITH_POOL.replace("Hello {context.name}", "{gc.get_threshold()}", 1) + "import gc\n",
    )
    deployment.spawn(agentexec_worker(), AGENTEXEC_WORKER_MODULE="tasks:pool")
    assert greeted() == str(GC_THRESHOLDS)
    assert deployment.stop() == 0


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_options_of_the_command_line_take_precedence(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "tasks.py", MODULE_WITH_POOL)
    options = ["--workers", "2", "--concurrency", "3", "--queue", "greetings", "--graceful-timeout", "5"]
    deployment.spawn(agentexec_worker("tasks", *options))
    assert "2 worker(s) with 3 task(s) each on queue greetings" in deployment.log
    task = ax.enqueue_sync("greet", {"name": "Acme"}, queue_name="greetings")
    assert ax.get_result_sync(task, patient(15)) == "Hello Acme"
    assert deployment.stop() == 0


PROGRAM_WITH_QUEUES = (
    TASK.format(pool='pool = ax.Pool(queue_name="greetings")\nother = ax.Pool(queue_name="others")')
    + HANDLER
    + """
@other.task("other")
async def run_other(agent_id: UUID, context: Greeting) -> str:
    return (await ax.enqueue("greet", context)).queue_name

if __name__ == "__main__":
    other.run()
"""
)


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_pool_serves_the_queue_that_it_names(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "tasks.py", PROGRAM_WITH_QUEUES)
    deployment.spawn(agentexec_worker("tasks"), AGENTEXEC_QUEUE_NAME="from-the-environment")
    assert "on queue greetings" in deployment.log
    task = ax.enqueue_sync("greet", {"name": "Acme"}, queue_name="greetings")
    assert ax.get_result_sync(task, patient(15)) == "Hello Acme"
    deployment.spawn([sys.executable, "tasks.py"])
    assert "on queue others" in deployment.log
    # In a process that has the pools, each task goes to the queue of its own.
    task = ax.enqueue_sync("other", {"name": "Acme"}, queue_name="others")
    assert ax.get_result_sync(task, patient(15)) == "greetings"
    deployment.spawn(agentexec_worker("tasks:other", "--queue", "mine"))
    assert "on queue mine" in deployment.log
    task = ax.enqueue_sync("other", {"name": "Acme"}, queue_name="mine")
    assert ax.get_result_sync(task, patient(15)) == "greetings"


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_module_that_starts_threads_is_loaded_by_each_worker(deploy: Deploy) -> None:
    """A fork would leave the locks of these threads locked."""
    deployment = deploy()
    threads = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    write(deployment, "tasks.py", threads + MODULE_WITH_POOL)
    deployment.spawn(agentexec_worker("tasks"))
    assert "each worker loads it by itself" in deployment.log
    assert greeted() == "Hello Acme"
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)


# ---- the embedded default ----------------------------------------------------------------------------------


@on_targets("embedded", alternates=False)
def test_with_nothing_set_everything_works_in_one_folder(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "tasks.py", MODULE_WITH_POOL)
    deployment.spawn(agentexec_worker("tasks"), AGENTEXEC_DATABASE_URL="")
    assert (
        deployment.log.count(f"Using sqlite:///{deployment.folder}/agentexec.db for record and queue.") == 1
    )
    done = run_agentexec("enqueue", "greet", '{"name": "Acme"}', "--wait", cwd=deployment.folder)
    assert (done.returncode, done.stdout) == (0, "Hello Acme\n"), done.stderr
    assert (deployment.folder / "agentexec.db").is_file()
    assert deployment.stop() == 0


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_tasks_enqueued_before_the_first_worker_ever_ran_are_run(deploy: Deploy) -> None:
    """The first command in an empty folder may be `enqueue`."""
    deployment = deploy()
    write(deployment, "tasks.py", MODULE_WITH_POOL)
    done = run_agentexec("enqueue", "greet", '{"name": "Acme"}', cwd=deployment.folder)
    assert done.returncode == 0, done.stderr
    deployment.spawn(agentexec_worker("tasks"), AGENTEXEC_DATABASE_URL="")
    count = f"import agentexec as ax; print(ax.get_result_sync({done.stdout.strip()!r}, 15))"
    deployment.wait_for(lambda: "on queue" in deployment.log)
    waiting = deployment.spawn([sys.executable, "-c", count], ready=False, AGENTEXEC_DATABASE_URL="")
    assert waiting.wait(patient(20)) == 0
    assert "Hello Acme" in deployment.log


# ---- a user's program --------------------------------------------------------------------------------------

PROGRAM = """
ax.CONF.num_workers = 2
ax.CONF.worker_concurrency = 7

if __name__ == "__main__":
"""


def program(body: str) -> str:
    """A module with a pool that is also a program."""
    return MODULE_WITH_POOL + PROGRAM + textwrap.indent(textwrap.dedent(body), "    ")


RUN = """
pool.run()
print("returned")
"""
RUN_AND_CLEAN_UP = """
    from sqlalchemy.orm import Session
    try:
        pool.run()
    except KeyboardInterrupt:
        with Session(ax.get_engine()) as db:
            print("canceled", ax.activity.cancel_pending(db))
"""

START = """
    import time
    from pathlib import Path
    pool.start()
    print("started")
    while not Path("stop").exists():
        time.sleep(0.02)
    pool.shutdown()
    print("shut down")
    pool.shutdown()
    pool.start()
    print("started again")
    while not Path("stop-again").exists():
        time.sleep(0.02)
    pool.shutdown(timeout=5)
    print("shut down again")
"""


START_AND_END = """
import time
from pathlib import Path
pool.start()
while not Path("stop").exists():
    time.sleep(0.02)
"""


PREFIX = 'import agentexec as ax\nax.CONF.table_prefix = "ours_"\n'

OVERRULED = """
ax.CONF.num_workers = 3
ax.CONF.worker_concurrency = 7
ax.CONF.queue_name = "greetings"
ax.CONF.graceful_shutdown_timeout = 0
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_settings_of_the_module_hold_for_the_supervisor_and_options_take_precedence(deploy: Deploy) -> None:
    deployment = deploy()
    del deployment.environment["AGENTEXEC_NUM_WORKERS"]
    write(deployment, "tasks.py", PREFIX + MODULE_WITH_POOL + OVERRULED)
    deployment.spawn(agentexec_worker("tasks", "--concurrency", "2"), AGENTEXEC_DATABASE_URL="")
    assert "3 worker(s) with 2 task(s) each on queue greetings" in deployment.log
    deployment.wait_for(lambda: len(deployment.workers()) == 3)
    variables = {"AGENTEXEC_TABLE_PREFIX": "ours_", "AGENTEXEC_QUEUE_NAME": "greetings"}
    done = run_agentexec("enqueue", "greet", '{"name": "Acme"}', "--wait", cwd=deployment.folder, **variables)
    assert (done.returncode, done.stdout) == (0, "Hello Acme\n"), done.stderr
    assert deployment.stop() == 0


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_program_runs_its_pool_until_sigterm(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "worker.py", program(RUN))
    prices = '{"gpt-4o": {"input": 2.5, "output": 10}}'
    deployment.spawn([sys.executable, "worker.py"], AGENTEXEC_MODEL_PRICES=prices)
    assert "2 worker(s) with 7 task(s) each" in deployment.log, "what is set in code is in force"
    assert greeted() == "Hello Acme"
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)
    assert deployment.log.count("returned") == 1
    assert "Traceback" not in deployment.log


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_ctrl_c_ends_a_program_without_a_traceback(deploy: Deploy) -> None:
    deployment = deploy()
    process = deployment.spawn([sys.executable, str(MODULE)], session=True)
    family = deployment.processes()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(patient(15)) == 0
    assert all_exited(family)
    assert "Traceback" not in deployment.log
    assert "KeyboardInterrupt" not in deployment.log


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_program_can_clean_up_after_ctrl_c(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "worker.py", program(RUN_AND_CLEAN_UP))
    process = deployment.spawn([sys.executable, "worker.py"], session=True)
    pending = ax.enqueue_sync("greet", {"name": "Acme"}, delay=60)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(patient(15)) == 0
    assert "canceled 1" in deployment.log
    assert deployment.status(pending) == "canceled"


@pytest.mark.thorough
@on_targets("embedded", "valkey+sqlite", alternates=False)
def test_a_program_runs_workers_in_the_background_and_shuts_them_down(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "worker.py", program(START))
    process = deployment.spawn([sys.executable, "worker.py"], ready=False)
    assert greeted() == "Hello Acme"
    family = [found for found in deployment.processes() if found.pid != process.pid]
    assert family
    (deployment.folder / "stop").touch()
    deployment.wait_for(lambda: "shut down" in deployment.log)
    assert all_exited(family)
    deployment.wait_for(lambda: "started again" in deployment.log)
    assert greeted() == "Hello Acme"
    (deployment.folder / "stop-again").touch()
    assert process.wait(patient(15)) == 0
    assert deployment.processes() == []
    assert "Traceback" not in deployment.log


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_workers_end_with_a_program_that_does_not_shut_them_down(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "worker.py", program(START_AND_END))
    process = deployment.spawn([sys.executable, "worker.py"], ready=False)
    assert greeted() == "Hello Acme"
    family = deployment.processes()
    (deployment.folder / "stop").touch()
    process.wait(patient(10))
    assert all_exited(family)


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_pool_that_workers_cannot_import_is_refused(deploy: Deploy) -> None:
    deployment = deploy()
    write(deployment, "worker.py", "import agentexec as ax\ndef main():\n    ax.Pool().run()\nmain()\n")
    process = deployment.spawn([sys.executable, "worker.py"], ready=False)
    assert process.wait(patient(15)) == 2
    assert "Worker processes must be able to import your pool" in deployment.log
    assert "Traceback" not in deployment.log


START_IN_VAIN = """
import asyncio
from pathlib import Path

if __name__ != "__main__" and Path("broken").exists():
    raise RuntimeError("the key is missing")

def attempt():
    try:
        pool.start()
    except ax.AgentexecError as error:
        print(type(error).__name__, error.exit_code, error, flush=True)
        return error

if __name__ == "__main__":
    assert attempt() is not None
"""

START_AFTER_ALL = """
    Path("broken").unlink()
    ax.configure(database_url="sqlite:///fresh.db")
    attempt()
    ax.Base.metadata.create_all(ax.get_engine())
    ax.CONF.connect_timeout = 0
    ax.CONF.redis_url = "redis://127.0.0.1:1"
    asyncio.run(asyncio.to_thread(attempt))
    ax.CONF.redis_url = None
    assert attempt() is None
    print(ax.get_result_sync(ax.enqueue_sync("greet", {"name": "Acme"}), 15))
    pool.shutdown()
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_start_in_the_background_that_fails_raises_the_reason(deploy: Deploy) -> None:
    deployment = deploy()
    (deployment.folder / "broken").touch()
    write(deployment, "worker.py", MODULE_WITH_POOL + START_IN_VAIN)
    process = deployment.spawn([sys.executable, "worker.py"], ready=False)
    assert process.wait(patient(30)) == 0, deployment.log
    [line] = deployment.log.splitlines()
    assert line.startswith("ModuleLoadError 2 ") and "RuntimeError: the key is missing" in line
    assert all_exited(deployment.processes())


LOADED_ONCE = """
import threading
import time
from pathlib import Path

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
try:
    Path("loaded").mkdir()
except FileExistsError:
    raise RuntimeError("a second process cannot have it") from None
"""


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_module_that_only_one_process_can_load_ends_the_start(deploy: Deploy) -> None:
    """Its threads make every process load it by itself."""
    deployment = deploy()
    write(deployment, "tasks.py", LOADED_ONCE + MODULE_WITH_POOL)
    process = deployment.spawn(agentexec_worker("tasks"), ready=False)
    assert process.wait(patient(30)) == 2
    assert (
        deployment.log.count("tasks cannot be imported: RuntimeError: a second process cannot have it") == 1
    )


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_pool_starts_once_what_kept_it_from_starting_is_repaired(deploy: Deploy) -> None:
    deployment = deploy()
    (deployment.folder / "broken").touch()
    program = MODULE_WITH_POOL.replace("ax.Pool()", 'ax.Pool(database_url="sqlite:///fresh.db")')
    write(deployment, "worker.py", program + START_IN_VAIN + START_AFTER_ALL)
    process = deployment.spawn([sys.executable, "worker.py"], ready=False)
    assert process.wait(patient(60)) == 0, deployment.log
    said = [line for line in deployment.log.splitlines() if " INFO " not in line]
    assert [line.split()[:2] for line in said[:3]] == [
        ["ModuleLoadError", "2"],
        ["SchemaError", "5"],
        ["UnavailableError", "3"],
    ]
    assert said[3:] == ["Hello Acme"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "call", ["pool.run()", "pool.start()\nimport time\ntime.sleep(60)"], ids=["run", "start"]
)
@on_targets("embedded", alternates=False)
def test_a_program_that_starts_workers_at_import_is_refused(deploy: Deploy, call: str) -> None:
    """Otherwise each worker would start workers, and so on."""
    deployment = deploy()
    write(deployment, "worker.py", f"{MODULE_WITH_POOL}\n{call}\n")
    process = deployment.spawn([sys.executable, "worker.py"], ready=False)
    deployment.wait_for(lambda: 'under `if __name__ == "__main__":`' in deployment.log)
    if "start" in call:
        assert process.wait(patient(15)) == 1
        assert deployment.log.splitlines()[-1].startswith("agentexec.errors.UsageError: Workers import")
    else:
        assert process.wait(patient(15)) == 2
        assert deployment.log.count("\n") == 1, deployment.log
    assert all_exited(deployment.processes())


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_worker_that_keeps_dying_is_replaced_more_slowly(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    for death in range(3):
        [worker] = deployment.wait_for(deployment.workers)
        worker.kill()
        deployment.wait_for(lambda death=death: deployment.log.count("replacing it") > death)
        assert all_exited([worker])
    assert re.search(
        r"worker-1 was killed by SIGKILL .*; replacing it in \d\.\d s, because it keeps dying soon after its start, "
        "and no task starts here until then",
        deployment.log,
    )
    task = deployment.enqueue("work", "a")
    assert ax.get_result_sync(task, patient(15)) == "a"

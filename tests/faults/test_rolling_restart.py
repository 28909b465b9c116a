"""New code is rolled out on SIGHUP without a gap, and no process is replaced at the cost of a task."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

import agentexec as ax
from tests.deployment import REPOSITORY, Deploy, Deployment, all_exited, on_one_target, on_targets
from tests.waiting import patient

CODE = """
import subprocess, sys
from agentexec import Pool, enqueue
from tests.faults.worker_module import Job, asyncio, write_ledger

pool = Pool()

@pool.task("versioned")
async def versioned(agent_id, context: Job):
    write_ledger("start", context.key)
    await asyncio.sleep(0 if "VERSION" == "quick version" else context.seconds)
    write_ledger("end", context.key)
    return "VERSION"

@pool.task("ignored")
async def ignored(agent_id, context: Job):
    program = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip()

hoard = []

@pool.task("hoard")
async def hoards(agent_id, context: Job):
    write_ledger("start", context.key)
    hoard.append(b"x" * 100_000_000)
    await asyncio.sleep(context.seconds)

@pool.task("hang")
async def hangs(agent_id, context: Job):
    write_ledger("start", context.key)
    while True:
        pass

@pool.task("enqueues")
async def enqueues(agent_id, context: Job):
    write_ledger("start", context.key)
    if context.times:
        await enqueue("enqueues", {"key": context.key, "times": context.times - 1})
"""


class Project:
    """A deployment with a module of its own, which changes."""

    def __init__(
        self, deployment: Deployment, *arguments: str, ready: bool = True, version: str = "first version"
    ) -> None:
        self.deployment = deployment
        self.file = deployment.folder / "project.py"
        self.write(version)
        command = [sys.executable, "-m", "agentexec", "worker", "project.py", *arguments]
        self.supervisor = deployment.spawn(
            command, ready=ready, PYTHONPATH=str(REPOSITORY), PYTHONDONTWRITEBYTECODE="1"
        )
        self.tasks: list[ax.Task] = []

    def write(self, version: str) -> None:
        self.file.write_text(CODE.replace("VERSION", version) if version != "(" else version)

    def enqueue(self, seconds: float = 0.0) -> ax.Task:
        task = self.deployment.enqueue("versioned", f"task-{len(self.tasks)}", seconds=seconds)
        self.tasks.append(task)
        return task

    def send(self, number: int, until: str) -> None:
        """Send a signal, and enqueue tasks until the log has a new line with a text."""
        before = self.deployment.log.count(until)
        self.supervisor.send_signal(number)

        def said() -> bool:
            self.enqueue(0.05)
            return self.deployment.log.count(until) > before

        self.deployment.wait_for(said, timeout=60)

    def result(self, task: ax.Task) -> str:
        return str(ax.get_result_sync(task, timeout=patient(60)))

    def versions(self) -> set[str]:
        return {self.result(task) for task in self.tasks}

    def assert_each_ran_once(self) -> None:
        self.deployment.wait_for_ends(self.tasks, timeout=60)
        for task in self.tasks:
            detail = self.deployment.detail(task)
            assert (detail.status, detail.attempt, detail.deaths) == ("complete", 1, []), self.deployment.log
        assert set(self.deployment.ledger("start").values()) == {1}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_sighup_rolls_new_code_out_while_tasks_run_and_broken_code_changes_nothing(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=2)
    project = Project(deployment)
    long = project.enqueue(6.0)
    deployment.wait_for_start("task-0")

    project.file.write_text("def broken(:")
    project.send(signal.SIGHUP, "The workers go on with the code they have.")
    assert "project.py, line 1: invalid syntax" in deployment.log
    assert project.versions() >= {"first version"}

    project.write("second version")
    former = set(deployment.workers())
    project.send(signal.SIGHUP, "The new code is loaded; replacing 2 worker(s).")
    assert all_exited(former, 30)
    assert project.result(project.enqueue()) == "second version"
    assert project.result(long) == "first version", "what the old code has begun, it finishes"
    project.assert_each_ran_once()

    # The template of the first version is gone, and with it its maintenance process.
    deployment.wait_for(lambda: len(deployment.processes()) == 5)
    deployment.maintenance().kill()
    project.send(signal.SIGTTIN, "Starting a worker: there are 3 now.")
    deployment.wait_for(lambda: len(deployment.workers()) == 3)
    project.send(signal.SIGTTOU, "Stopping a worker: there are 2 now.")
    deployment.wait_for(lambda: len(deployment.workers()) == 2)
    project.assert_each_ran_once()
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_processes_that_have_run_their_tasks_are_replaced_and_each_task_runs_once(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=3)
    project = Project(deployment, "--max-tasks-per-child", "10")
    for _ in range(80):
        project.enqueue(0.02)
    project.assert_each_ran_once()
    pids = [deployment.worker_pids(f"task-{number}")[0] for number in range(80)]
    counts = [pids.count(pid) for pid in set(pids)]
    assert max(counts) <= 10
    assert len(counts) >= 8
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)
    assert "keeps dying" not in deployment.log


@pytest.mark.thorough
@on_targets("embedded")
@pytest.mark.parametrize("victim", ["former template", "new template", "maintenance", "supervisor"])
def test_a_kill_during_a_rollout_loses_no_task(deploy: Deploy, victim: str) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=2)
    project = Project(deployment)
    for _ in range(8):
        project.enqueue(1.0)
    deployment.wait_for_start("task-0", "task-1")
    former, maintenance = deployment.template(), deployment.maintenance()
    project.write("second version")
    project.supervisor.send_signal(signal.SIGHUP)
    new = deployment.wait_for(lambda: _children_except(project.supervisor, former.pid), timeout=30)
    if victim == "maintenance":
        maintenance.kill()
    elif victim == "supervisor":
        project.supervisor.kill()
        project.supervisor.wait()
    else:
        (former if victim == "former template" else new[0]).kill()
    if victim == "new template":
        deployment.wait_for(lambda: "The workers go on with the code they have." in deployment.log)
    if victim == "supervisor":
        family = [each for each in deployment.processes() if each.pid != project.supervisor.pid]
        assert all_exited(family, 15), "nothing is left behind"
        deployment.spawn(
            [sys.executable, "-m", "agentexec", "worker", "project.py"], PYTHONPATH=str(REPOSITORY)
        )
    deployment.wait_for_ends(project.tasks, timeout=60)
    assert {deployment.status(task) for task in project.tasks} == {"complete"}
    assert deployment.endings(project.tasks) == [["complete"]] * 8
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)


def _children_except(supervisor: subprocess.Popen[bytes], pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(supervisor.pid).children() if child.pid != pid]


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_a_task_that_hangs_costs_its_neighbours_nothing(deploy: Deploy) -> None:
    deployment = deploy()
    project = Project(deployment, "--hang-timeout", "3")
    neighbour = project.enqueue(1.0)
    deployment.wait_for_start("task-0")
    hang = deployment.enqueue("hang", "hang")
    detail = deployment.wait_for_status(hang, "error", timeout=60)
    assert detail.error is not None
    assert "its event loop did not answer for 3 s" in detail.error
    assert "for the 3rd time" in detail.error
    assert deployment.ledger("start")["hang"] == 3
    deployment.wait_for_ends([neighbour], timeout=30)
    assert deployment.status(neighbour) == "complete"


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_a_process_that_holds_too_much_is_replaced_after_its_tasks(deploy: Deploy) -> None:
    deployment = deploy()
    Project(deployment, "--max-memory-per-child", "300")
    [before] = deployment.workers()
    tasks = [deployment.enqueue("hoard", f"hoard-{number}", seconds=2.5) for number in range(4)]
    deployment.wait_for(lambda: "(--max-memory-per-child); replacing it" in deployment.log, timeout=30)
    assert all_exited([before], 30)
    deployment.wait_for_ends(tasks, timeout=30)
    assert [deployment.detail(task).attempt for task in tasks] == [1] * 4
    assert deployment.endings(tasks) == [["complete"]] * 4
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_a_burst_runs_all_that_is_ready_and_leaves_delayed_tasks(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=1)
    tasks = [deployment.enqueue("enqueues", f"chain-{number}", times=3) for number in range(2)]
    later = ax.enqueue_sync("versioned", {"key": "later"}, delay=600)
    project = Project(deployment, "--burst", "--pidfile", "worker.pid", ready=False)
    deployment.wait_for(lambda: (deployment.folder / "worker.pid").exists(), timeout=30)
    second = subprocess.run(
        [sys.executable, "-m", "agentexec", "worker", "project.py", "--pidfile", "worker.pid"],
        cwd=deployment.folder,
        env=deployment.environment,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 2
    assert f"belongs to process {project.supervisor.pid}, which runs" in second.stderr
    assert project.supervisor.wait(patient(60)) == 0
    assert deployment.ledger("start") == {"chain-0": 4, "chain-1": 4}
    assert [deployment.status(task) for task in tasks] == ["complete"] * 2
    assert deployment.status(later) == "queued"
    assert not (deployment.folder / "worker.pid").exists()


@pytest.mark.thorough
@on_targets("embedded")
def test_in_development_a_change_is_loaded_and_running_tasks_continue_in_it(deploy: Deploy) -> None:
    deployment = deploy()
    project = Project(deployment, "--reload", ready=False, version="(")
    deployment.wait_for(lambda: "Waiting for a change of the code." in deployment.log, timeout=60)
    project.write("first version")
    deployment.wait_for(lambda: "on queue" in deployment.log, timeout=60)
    long = project.enqueue(600.0)
    deployment.wait_for_start("task-0")
    project.write("quick version")
    assert project.result(long) == "quick version"
    assert deployment.detail(long).attempt == 1
    assert deployment.stop() == 0


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
@pytest.mark.parametrize("prefix", [[], ["nohup"]])
def test_programs_of_tasks_ignore_sighup_only_if_nohup_started_the_worker(
    deploy: Deploy, prefix: list[str]
) -> None:
    deployment = deploy()
    (deployment.folder / "project.py").write_text(CODE)
    # The tests themselves may have been started with nohup.
    command = [
        "env",
        "--default-signal=HUP",
        *prefix,
        sys.executable,
        "-m",
        "agentexec",
        "worker",
        "project.py",
    ]
    deployment.spawn(command, PYTHONPATH=str(REPOSITORY))
    task = deployment.enqueue("ignored", "ignored")
    assert ax.get_result_sync(task, timeout=patient(60)) == str(bool(prefix))
    assert deployment.stop() == 0


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_new_code_with_another_queue_gives_back_the_tasks_of_a_former_worker_that_dies(
    deploy: Deploy,
) -> None:
    """Leases are of ten minutes here, so nothing but the report of the death gives them back."""
    deployment = deploy(num_workers=1, lease_seconds=600)
    project = Project(deployment)
    long, brief = project.enqueue(60), project.enqueue(60)
    deployment.wait_for_start("task-0", "task-1")
    former = deployment.workers()
    project.file.write_text(
        CODE.replace("VERSION", "quick version").replace("Pool()", 'Pool(queue_name="new")')
    )
    project.supervisor.send_signal(signal.SIGHUP)
    left = f"The new code does not serve {ax.CONF.queue_name} any more."
    deployment.wait_for(lambda: left in deployment.log, timeout=60)
    deployment.wait_for(lambda: "Draining: waiting" in deployment.log)
    for process in former:
        process.kill()
    deployment.wait_for(lambda: {deployment.status(task) for task in (long, brief)} == {"queued"})
    [death] = deployment.detail(long).deaths
    assert death.reason.startswith("was killed by SIGKILL")
    other = [sys.executable, "-m", "agentexec", "worker", "project.py", "--burst", "-Q", ax.CONF.queue_name]
    deployment.spawn(other, ready=False, PYTHONPATH=str(REPOSITORY), PYTHONDONTWRITEBYTECODE="1")
    assert project.versions() == {"quick version"}

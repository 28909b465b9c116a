"""`agentexec list`, `show`, `logs`, `retry` and `prune`, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLog
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment, on_one_target, on_targets, run_in_process
from tests.waiting import patient

everywhere = on_targets("embedded", "valkey+postgres", alternates=False)


def age(task: ax.Task, **by: float) -> None:
    with RUNTIME.engine.begin() as connection:
        moments = {name: getattr(Activity, name) - timedelta(**by) for name in ("created_at", "finished_at")}
        row = connection.execute(
            select(Activity.created_at, Activity.finished_at).where(Activity.agent_id == task.agent_id)
        ).one()
        values = {name: getattr(row, name) - timedelta(**by) for name in moments if getattr(row, name)}
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(values))


def cli(deployment: Deployment, *arguments: str) -> tuple[int, str, str]:
    return run_in_process(deployment, *arguments)


@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_list_and_show_print_tasks_and_answer_every_filter(deploy: Deploy) -> None:
    deployment = deploy()
    assert cli(deployment, "list") == (0, "", "No tasks match.\n")
    deployment.start()
    good = deployment.enqueue("work", "good")
    bad = deployment.enqueue("fail", "bad")
    deployment.wait_for_ends([good, bad])
    later = ax.enqueue_sync("work", {"key": "x"}, delay=3600, metadata={"tenant": "a"})

    code, printed, _ = cli(deployment, "list")
    heads, *lines = printed.splitlines()
    assert code == 0 and heads.split() == ["AGENT_ID", "TASK", "STATUS", "%", "CREATED", "LATEST"]
    assert [line.split()[:4] for line in lines] == [
        [str(later.agent_id), "work", "queued", "0"],
        [str(bad.agent_id), "fail", "error", "0"],
        [str(good.agent_id), "work", "complete", "100"],
    ]
    for options, expected in (
        (["--status", "error"], [bad]),
        (["--status", "error", "-s", "complete"], [bad, good]),
        (["-t", "work"], [later, good]),
        (["--task", "work"], [later, good]),
        (["--type", "work"], [later, good]),
        (["-m", "tenant=a"], [later]),
        (["-n", "1", "--page", "3"], [good]),
        (["--text", "no luck"], [bad]),
        (["--since", "1h", "-t", "fail"], [bad]),
        (["--since", "0s"], []),
    ):
        found = json.loads(cli(deployment, "list", *options, "--json")[1])
        assert [item["agent_id"] for item in found["items"]] == [str(task.agent_id) for task in expected]
    first = json.loads(cli(deployment, "list", "-n", "1", "--json")[1])
    following = json.loads(cli(deployment, "list", "-n", "1", "--after", first["next_cursor"], "--json")[1])
    assert [task["agent_id"] for task in following["items"]] == [str(bad.agent_id)]
    assert "Page 1 of 3, 3 tasks in total." in cli(deployment, "list", "-n", "1")[2]
    assert cli(deployment, "list", "-n", "1", "--page", "9")[2] == "Page 9 is empty; the last page is 3.\n"
    code, _, err = cli(deployment, "list", "--status", "late")
    assert (code, err) == (
        2,
        "agentexec: There is no status 'late'; the statuses are queued, running, complete, error, canceled.\n",
    )

    code, printed, _ = cli(deployment, "show", str(bad.agent_id))
    assert code == 0
    for part in (
        "task:      fail",
        "status:    error, 0 %",
        "attempts:  1",
        "Task started.",
        "ValueError: no luck",
    ):
        assert part in printed
    assert json.loads(cli(deployment, "show", str(good.agent_id), "--json")[1])["status"] == "complete"
    unknown = "01a20d26-1efa-7046-8c68-77b6fa1e1c22"
    assert cli(deployment, "show", unknown) == (
        1,
        "",
        f"agentexec: There is no activity with agent_id {unknown}.\n",
    )
    assert cli(deployment, "show", "nonsense")[0] == 2


@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_tasks_messages_cannot_rewrite_the_terminal(deploy: Deploy) -> None:
    deployment = deploy()
    agent_id = ax.activity.create("job", "\x1b[2Jgone\nsecond")
    for arguments in (["list"], ["show", str(agent_id)], ["logs", str(agent_id)]):
        printed = cli(deployment, *arguments)[1]
        assert "\x1b" not in printed and r"\x1b[2Jgone second" in printed


@pytest.mark.thorough
@everywhere
def test_logs_can_be_followed_to_the_end(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("report", "r", times=4, seconds=0.3)
    done = subprocess.run(
        [sys.executable, "-m", "agentexec", "logs", "-f", str(task.agent_id)],
        env=deployment.environment,
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        timeout=patient(30),
    )
    assert done.returncode == 0, done.stderr
    messages = [line.split("  ")[-1] for line in done.stdout.splitlines()]
    assert messages == [
        "Waiting to start.",
        "Task started.",
        *(f"Step {number} of 4" for number in range(1, 5)),
        "Task completed successfully.",
    ]
    plain = cli(deployment, "logs", str(task.agent_id))[1]
    assert plain == done.stdout
    first = json.loads(cli(deployment, "logs", str(task.agent_id), "--json")[1].splitlines()[0])
    assert (first["status"], first["percentage"], first["message"]) == ("queued", 0, "Waiting to start.")


@pytest.mark.thorough
@everywhere
def test_retry_queues_failed_and_canceled_tasks_again(deploy: Deploy) -> None:
    deployment = deploy(max_crashes=1)
    worker = deployment.start()
    poison = deployment.enqueue("poison", "p")
    deployment.wait_for_status(poison, "error")
    deployment.stop(worker)
    canceled = deployment.enqueue("work", "c")
    assert ax.cancel_sync(canceled)
    assert cli(deployment, "retry", str(canceled.agent_id)) == (
        0,
        f"Queued task {canceled.agent_id} again.\n",
        "",
    )
    code, _, err = cli(deployment, "retry", str(canceled.agent_id))
    assert code == 1
    assert err.endswith(
        f"Task {canceled.agent_id} is queued; only failed and canceled tasks can be retried.\n"
    )
    deployment.start()
    deployment.wait_for_status(canceled, "complete")
    # Alone, since tasks running beside one that crashes its worker would end with it.
    assert cli(deployment, "retry", str(poison.agent_id))[0] == 0
    deployment.wait_for(lambda: deployment.ledger("start")["p"] == 2)
    deployment.wait_for_status(poison, "error")
    assert "Put back on the queue by hand." in [line.message for line in deployment.detail(canceled).logs]
    assert not ax.retry_sync(canceled)


@on_targets("embedded")
def test_a_budget_is_given_at_enqueue_and_raised_by_a_retry(deploy: Deploy) -> None:
    deployment = deploy()
    code, _, err = cli(deployment, "enqueue", "work", "--budget", "2")
    assert code == 2 and 'write it like "$2.00"' in err
    code, printed, _ = cli(deployment, "enqueue", "work", "--budget", "$2.00", "--on-budget", "ask")
    task = printed.strip()
    assert code == 0
    printed = f"Task {task} may spend $1.50: $0.00 spent, $0.00 reserved of $1.50.\n"
    assert cli(deployment, "budget", task, "$1.50", "--by", "Ada") == (0, printed, "")
    assert "by Ada" in cli(deployment, "logs", task)[1]
    code, _, err = cli(deployment, "budget", task, "1.50")
    assert code == 2 and "agentexec: AMOUNT: '1.50' is not a budget" in err
    assert ax.cancel_sync(task)
    code, _, err = cli(deployment, "budget", task, "$2.00")
    assert code == 1 and "is canceled; only a task that has not ended gets another budget" in err
    assert "Budget set to $1.50 by " in cli(deployment, "show", task)[1]
    assert "$0.00 spent, $0.00 reserved of $1.50" in cli(deployment, "show", task)[1]
    assert cli(deployment, "retry", task, "--budget", "$5.00")[0] == 0
    shown = cli(deployment, "show", task)[1]
    assert "$0.00 spent, $0.00 reserved of $5.00" in shown
    assert "Put back on the queue by hand, with a budget of $5.00." in shown
    code, _, err = cli(deployment, "retry", "--all", "--budget", "$5.00")
    assert code == 2 and "--budget are for tasks named by their IDs" in err


@pytest.mark.thorough
@on_targets("embedded")
def test_failed_tasks_are_listed_and_retried_together(deploy: Deploy) -> None:
    deployment = deploy()
    assert cli(deployment, "failed") == (0, "", "No task has failed.\n")
    assert cli(deployment, "retry", "--all") == (0, "No failed task matches.\n", "")
    deployment.start()
    tasks = [deployment.enqueue("fail", f"bad {number}") for number in range(3)]
    deployment.wait_for_ends(tasks)

    code, printed, told = cli(deployment, "failed", "-n", "2")
    heads, *lines = printed.splitlines()
    assert code == 0 and heads.split() == ["AGENT_ID", "TASK", "FAILED", "ATTEMPTS", "ERROR"]
    assert len(lines) == 2 and all("no luck" in line for line in lines)
    assert told == "The newest 2 of 3 failed task(s). Retry them all: agentexec retry --all\n"
    told = cli(deployment, "failed", "-t", "fail", "--since", "1h", "-m", "tenant=a b")[2]
    assert told == "No task has failed.\n"
    found = json.loads(cli(deployment, "failed", "--json")[1])
    assert found["total"] == 3
    assert {item["retry"] for item in found["items"]} == {
        f"agentexec retry {task.agent_id}" for task in tasks
    }
    groups = json.loads(cli(deployment, "failed", "--group", "--json")[1])
    assert sum(group["count"] for group in groups["items"]) == 3

    code, printed, err = run_in_process(deployment, "retry", "-t", "fail", "--since", "1h", text="n\n")
    assert (code, printed) == (1, "Retry 3 failed task(s)? [y/N]: ")
    assert {deployment.status(task) for task in tasks} == {"error"}
    code, printed, _ = run_in_process(deployment, "retry", "--all", text="y\n")
    assert (code, printed) == (0, "Retry 3 failed task(s)? [y/N]: Queued 3 task(s) again.\n")
    deployment.wait_for(lambda: {deployment.detail(task).attempt for task in tasks} == {2})
    deployment.wait_for_ends(tasks)
    ids = [str(task.agent_id) for task in tasks]
    assert cli(deployment, "retry", *ids)[0] == 0
    unknown = "01a20f88-9c47-7904-8c27-ab1c480d3ca6"
    deployment.wait_for_ends(tasks)
    code, printed, err = cli(deployment, "retry", unknown, ids[0])
    assert (code, printed) == (1, f"Queued task {ids[0]} again.\n")
    assert unknown in err
    for arguments in (
        ["retry"],
        ["retry", ids[0], "--all"],
        ["retry", "-m", "a=b"],
        ["failed", "--since", "x"],
    ):
        assert cli(deployment, *arguments)[0] == 2, arguments


@everywhere
def test_prune_removes_tasks_that_ended_long_ago_with_all_their_rows(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    old, fresh, running = (deployment.enqueue("work", key) for key in ("old", "fresh", "long"))
    deployment.wait_for_ends([old, fresh, running])
    waiting = ax.enqueue_sync("work", {"key": "w"}, delay=3600)
    age(old, days=40)
    age(waiting, days=40)
    code, out, _ = cli(deployment, "prune", "--older-than", "30d", "--yes")
    assert (code, out) == (0, "Removed 1 task(s).\n")
    assert cli(deployment, "prune", "--older-than", "30d", "--yes")[1] == "Removed 0 task(s).\n"
    with Session(RUNTIME.engine) as db:
        with pytest.raises(ax.ActivityNotFoundError):
            ax.activity.detail(db, old.agent_id)
        assert ax.activity.detail(db, fresh.agent_id).status == "complete"
        left = db.scalar(
            select(func.count()).select_from(ActivityLog).where(ActivityLog.activity_id == old.agent_id)
        )
        assert left == 0
    for wrong in ("30", "month", "-1d"):
        code, _, err = cli(deployment, "prune", f"--older-than={wrong}", "--yes")
        assert code == 2 and "--older-than takes a time like 30d" in err


@pytest.mark.thorough
@on_targets("embedded")
def test_prune_asks_for_confirmation(deploy: Deploy) -> None:
    deployment = deploy()
    agent_id = ax.activity.create("job")
    ax.activity.complete(agent_id)
    time.sleep(0.05)
    done: Any = subprocess.run(
        [sys.executable, "-m", "agentexec", "prune", "--older-than", "0s"],
        env=deployment.environment,
        cwd=deployment.folder,
        input="n\n",
        capture_output=True,
        text=True,
        timeout=patient(20),
    )
    assert done.returncode == 1 and "Remove 1 task(s) with their logs?" in done.stdout
    with Session(RUNTIME.engine) as db:
        assert ax.activity.detail(db, agent_id)

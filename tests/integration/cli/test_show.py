"""`agentexec show` and `list` answer what a task was asked, what it answered, and what it waits for."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, update

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLog, ActivityResult, WorkerProcess
from agentexec.cli.database import session
from agentexec.cli.output import cell_width
from agentexec.cli.screen.data import Detail
from agentexec.cli.screen.detail import render_detail
from agentexec.cli.task_view import load_view
from agentexec.db.clock import utc_now
from agentexec.journal.canonical import digest
from agentexec.journal.models import Approval, EventWait, JournalEntry
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from tests.deployment import Deploy, Deployment, on_targets, run_in_process

HOSTILE = "\x1b[31m\x9b2J\u202e [red]text[/red]"
KEY = "sk-" + "a1" * 20

Show = Callable[..., str]


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy()


@pytest.fixture
def show(deployment: Deployment) -> Show:
    def run(agent_id: UUID, *options: str) -> str:
        code, out, err = run_in_process(deployment, "show", str(agent_id), *options)
        assert (code, err) == (0, "")
        assert all(line.isprintable() for line in out.splitlines())
        return out

    return run


def change(agent_id: UUID, **values: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == agent_id).values(**values))


def add(model: Any, agent_id: UUID, **values: Any) -> None:
    now = utc_now()
    with RUNTIME.engine.begin() as connection:
        connection.execute(insert(model).values(agent_id=agent_id, created_at=now, **values))


def log(agent_id: UUID, status: Status, message: str) -> None:
    with RUNTIME.engine.begin() as connection:
        row = {"activity_id": agent_id, "created_at": utc_now(), "status": status, "message": message}
        connection.execute(insert(ActivityLog).values(row))


def end(agent_id: UUID, result: str | None) -> None:
    now = utc_now()
    change(agent_id, status=Status.COMPLETE, percentage=100, started_at=now, finished_at=now)
    if result is not None:
        with RUNTIME.engine.begin() as connection:
            row = {"agent_id": agent_id, "value": result, "expires_at": now + timedelta(hours=1)}
            connection.execute(insert(ActivityResult).values(row))


def add_worker(worker_id: str, queue: str, seen_ago: float = 0) -> None:
    now = utc_now()
    row = {
        "worker_id": worker_id, "queue": queue, "host": "web-1", "pid": 77, "concurrency": 1, "running": 1,
        "draining": False, "cpu_percent": 1.0, "rss_bytes": 1, "started_at": now, "seen_at": now - timedelta(seconds=seen_ago),
    }  # fmt: skip
    with RUNTIME.engine.begin() as connection:
        connection.execute(insert(WorkerProcess).values(row))


@on_targets("embedded", "postgres")
def test_context_result_and_metadata_are_shown_without_secrets(show: Show) -> None:
    context = {"company": "Acme", "api_key": "hunter22", "note": f"{HOSTILE} {KEY}", "text": "x" * 3_000}
    task = ax.enqueue_sync(
        "work",
        context,
        metadata={"token": "hunter23", "tenant": "a"},
        priority=ax.Priority.HIGH,
        fairness_key="{company}\x1b[2J",
        fairness_weight=2.5,
    )
    end(task.agent_id, json.dumps({"answer": "y" * 3_000, "password": "hunter24"}))
    for options, whole in (((), False), (("--full",), True)):
        text = show(task.agent_id, *options)
        value = json.loads(show(task.agent_id, "--json", *options))
        assert "hunter" not in text + str(value) and "sk-a" not in text + str(value)
        assert ("x" * 3_000 in text, "y" * 3_000 in text) == (whole, whole)
        assert text.count("2000 more characters; --full") == (0 if whole else 2)
        assert "queue:     agentexec_tasks, priority high" in text
        assert "fairness:  Acme" in text and ", weight 2.5" in text and "\x1b" not in text
        assert value["fairness_key"].startswith("Acme")
        assert 'metadata:  {"tenant": "a", "token": "***"}' in text, "sorted, whatever the database does"
        assert "[red]text[/red]" in text
        assert value["metadata"] == {"tenant": "a", "token": "***"}
        assert value["context"]["company"] == "Acme" and value["context"]["note"].startswith(HOSTILE)
        assert value["context"]["text"].startswith("x" * 1_000) and value["result"]["password"] == "***"
        assert (value["queue"], value["priority"], value["run_at"]) == ("agentexec_tasks", "high", None)
        assert len(str(value)) < 6_000 or whole


@on_targets("embedded")
def test_what_people_have_written_is_shown_without_secrets(show: Show, deployment: Deployment) -> None:
    task = ax.enqueue_sync("work", {})
    asked = {"kind": "approval", "tool": "pay", "arguments": json.dumps({"to": "Ann", "note": KEY})}
    add(Approval, task.agent_id, path="A/a", seq=0, call_id="a", status="pending", **asked)
    words = {"reason": f"because {KEY}", "decided_by": f"ann {KEY}", "decided_from": f"cli {KEY}"}
    decision = {**words, "decided_at": utc_now(), "decided_arguments": json.dumps({"password": "hunter22"})}
    add(Approval, task.agent_id, path="A/b", seq=0, call_id="b", status="edited", **asked, **decision)
    # A secret that the end of what is shown would cut in two.
    log(task.agent_id, Status.QUEUED, f"{'x' * 1_990} {KEY}")
    for options in ((), ("--full",), ("--json",)):
        text = show(task.agent_id, *options)
        assert "sk-a" not in text and "hunter" not in text
        assert text.count("***") >= 5 and "Ann" in text and "because" in text
    for command in (("logs", str(task.agent_id)), ("logs", "--json", str(task.agent_id))):
        assert "sk-a" not in run_in_process(deployment, *command)[1]
    printed = run_in_process(deployment, "approvals", "--state", "all")[1]
    assert "sk-a" not in printed and "hunter" not in printed and "because sk-***" in printed
    with session() as db:
        view = load_view(db, task.agent_id, None)
    lines = render_detail(Detail(view, []), utc_now())
    assert "sk-a" not in "".join(line.plain for line in lines)


@on_targets("embedded")
def test_a_text_is_shown_line_by_line_and_garbage_as_it_is(show: Show) -> None:
    task = ax.enqueue_sync("work", {})
    end(task.agent_id, json.dumps(f"Dear Acme,\n{HOSTILE}"))
    change(task.agent_id, context="{no JSON\x1b", metadata_=None, priority=7)
    text = show(task.agent_id)
    assert "result:\n  Dear Acme,\n  \\x1b[31m\\x9b2J\\u202e [red]text[/red]\n" in text
    assert r"context:   {no JSON\x1b" in text and "priority 7" in text


@on_targets("embedded")
def test_a_result_that_was_removed_is_called_expired_and_none_is_not(show: Show) -> None:
    task = ax.enqueue_sync("work", {})
    end(task.agent_id, None)
    assert "result:" not in show(task.agent_id)
    change(task.agent_id, finished_at=utc_now() - timedelta(seconds=ax.CONF.result_ttl + 60))
    assert "result:    expired" in show(task.agent_id)
    assert json.loads(show(task.agent_id, "--json"))["result_expired"] is True


@on_targets("embedded")
def test_a_delayed_task_says_until_when_and_a_queued_one_since_when(show: Show) -> None:
    later = ax.enqueue_sync("work", {}, delay=252.9)
    assert "now:       starts in 4m1" in show(later.agent_id)
    assert json.loads(show(later.agent_id, "--json"))["run_at"] is not None
    queued = ax.enqueue_sync("work", {})
    assert "now:       queued since" in show(queued.agent_id)
    assert "no worker serves the queue agentexec_tasks" in show(queued.agent_id)
    add_worker("w", "agentexec_tasks")
    assert "no worker" not in show(queued.agent_id)
    change(later.agent_id, run_at=utc_now() - timedelta(seconds=90))
    with RUNTIME.engine.begin() as connection:
        enqueued = utc_now() - timedelta(hours=1)
        connection.execute(update(ActivityLog).values(created_at=enqueued))
    assert "(1m3" in show(later.agent_id), "a task is due since its start time"
    tomorrow = ax.enqueue_sync("work", {}, delay=86_400 * 2)
    assert f"({(utc_now() + timedelta(days=2)).astimezone():%Y-%m-%d}" in show(tomorrow.agent_id)


@on_targets("embedded", "postgres")
def test_a_waiting_task_says_what_it_waits_for(show: Show) -> None:
    agent_id = ax.enqueue_sync("work", {}, delay=3_600).agent_id
    until = utc_now() + timedelta(hours=1)
    add(EventWait, agent_id, path="event/invoice", name="invoice.paid", key=f"42{HOSTILE}", expires_at=until)
    question = {"path": "A#1/c", "seq": 0, "call_id": "c", "kind": "approval", "tool": "send_email"}
    add(Approval, agent_id, **question, arguments='{"to": "a"}', status="pending")
    fact = {"kind": "outcome", "input_hash": digest("sleep"), "epoch": 1, "seq": 0}
    add(
        JournalEntry,
        agent_id,
        path="sleep#1",
        value=json.dumps((utc_now() - timedelta(1)).isoformat()),
        **fact,
    )
    add(JournalEntry, agent_id, path="sleep#2", value="garbage", **fact)
    add(JournalEntry, agent_id, path="sleep#3", value=json.dumps(until.isoformat()), **fact)
    text = show(agent_id)
    for sentence in (
        'waits for approval of send_email({"to": "a"})',
        "waits for the event invoice.paid 42",
        "sleeps for 59m",
    ):
        assert f"now:       {sentence}" in text
    assert "starts in" not in text
    waits = json.loads(show(agent_id, "--json"))["waits_for"]
    assert [wait["kind"] for wait in waits] == ["approval", "event", "sleep"]
    assert waits[1]["until"] == waits[2]["until"] == until.isoformat()


@on_targets("embedded", "valkey+postgres")
def test_a_running_task_says_on_which_worker_and_how_old_its_last_line_is(show: Show) -> None:
    queue = ax.CONF.queue_name
    agent_id = ax.enqueue_sync("work", {}).agent_id
    [lease] = RUNTIME.backend.claim(queue, "web-1:1:ab", limit=1, low_quota=1, lease_seconds=60).leases
    assert lease.agent_id == agent_id
    change(agent_id, status=Status.RUNNING, started_at=utc_now(), epoch=lease.epoch, attempt=1)
    child = ax.enqueue_sync("child", {}).agent_id
    change(child, parent_id=agent_id)
    assert "now:       runs on web-1:1:ab; last log line 0s ago" in show(agent_id)
    add_worker("web-1:1:ab", queue)
    assert "now:       runs on web-1, process 77 (alive); last log line" in show(agent_id)
    assert "now:       has 1 child(ren) that have not ended" in show(agent_id)
    assert json.loads(show(agent_id, "--json"))["worker"] == {"host": "web-1", "pid": 77, "id": "web-1:1:ab"}


@on_targets("valkey+postgres")
@pytest.mark.thorough
def test_a_running_task_is_shown_while_the_queue_is_away(deployment: Deployment, show: Show) -> None:
    agent_id = ax.enqueue_sync("work", {}).agent_id
    change(agent_id, status=Status.RUNNING, started_at=utc_now())
    assert deployment.broker is not None
    deployment.broker.stop()
    try:
        assert "now:       runs; last log line" in show(agent_id)
    finally:
        deployment.broker.start()


@on_targets("embedded")
def test_a_task_that_is_tried_again_says_which_attempt_of_how_many_and_the_last_error(show: Show) -> None:
    agent_id = ax.enqueue_sync("work", {}).agent_id
    log(agent_id, Status.RUNNING, "Attempt 9 failed with a lie; attempt 10 of 11 starts in 1 s.")
    log(
        agent_id,
        Status.QUEUED,
        f"Attempt 1 failed with ValueError: {HOSTILE}; attempt 2 of 4 starts in 60 s.",
    )
    add(EventWait, agent_id, path="e", name="of-the-first-attempt", key="")
    change(agent_id, run_at=utc_now() + timedelta(seconds=60), attempt=1)
    text = show(agent_id)
    assert r"attempts:  1 of 4; attempt 1 failed with ValueError: \x1b[31m\x9b2J\u202e" in text
    assert "now:       starts in 5" in text
    log(agent_id, Status.RUNNING, "Task started.")
    change(agent_id, status=Status.RUNNING, attempt=2)
    assert "attempts:  2 of 4; attempt 1 failed with ValueError" in show(agent_id)
    value = json.loads(show(agent_id, "--json"))
    assert (value["max_attempts"], value["previous_error"]) == (4, f"ValueError: {HOSTILE}")


@on_targets("embedded")
def test_a_list_fits_the_terminal_and_a_pipe_gets_the_columns_it_always_had(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ax.enqueue_sync("work", {}, delay=250, priority=ax.Priority.HIGH, queue_name="urgent")
    ax.enqueue_sync(f"東京{HOSTILE}" * 5, {})
    ax.activity.create("own", f"{HOSTILE}" * 20)
    seen: dict[int | None, str] = {}
    for width in (None, 20, 40, 80, 120, 200):
        monkeypatch.setattr("agentexec.cli.list.terminal_width", lambda width=width: width)
        code, seen[width], _ = run_in_process(deployment, "list")
        assert code == 0
        for line in seen[width].splitlines():
            assert line.isprintable() and (width is None or cell_width(line) <= width)
    assert str(seen[None]).splitlines()[0].split() == ["AGENT_ID", "TASK", "STATUS", "%", "CREATED", "LATEST"]
    assert "in 4m" in seen[80] and " DUE " in seen[120] and "in 4m" in seen[120] and "urgent" not in seen[120]
    assert all(word in seen[200] for word in ("QUEUE", "PRIORITY", "DUE", "urgent", "high", "in 4m", "now"))
    items = json.loads(run_in_process(deployment, "list", "--json")[1])["items"]
    assert [(item["queue"], item["priority"]) for item in items] == [
        (None, None),
        ("agentexec_tasks", "low"),
        ("urgent", "high"),
    ]
    assert items[2]["run_at"] is not None and "context" not in items[2]

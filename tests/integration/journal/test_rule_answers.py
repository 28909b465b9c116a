"""Rules that answer the questions of many tasks, while other people decide and workers end the same tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.activity.changes.stores import record_store
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.errors import LeaseLostError
from agentexec.journal import rule_answers
from agentexec.journal.approvals import ask
from agentexec.journal.models import Approval
from agentexec.journal.question_rows import ACTIVITY
from agentexec.journal.questions import Question, Terms
from agentexec.runtime import RUNTIME
from agentexec.task import Lease, Status, new_agent_id

CALLS = 2


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


def question(number: int) -> Question:
    terms = Terms(follows_rules=True, schema="{}")
    return Question(f"Clerk#1/call_{number}", 0, "approval", "refund", f'{{"amount":{number}}}', None, terms)


def waiting_tasks(count: int, calls: int = CALLS) -> list[UUID]:
    """Add running tasks of one tenant, each with open questions. Their keys are in order."""
    now, ids = utc_now(), [new_agent_id() for _ in range(count)]
    tasks = [
        NewTask(agent_id, "clerk", "{}", "q", 1, None, {"tenant": "acme"}, None, "", Status.RUNNING)
        for agent_id in ids
    ]
    rows = [question(number).values(agent_id, now) for agent_id in ids for number in range(calls)]
    with writing(RUNTIME.engine) as connection:
        insert_tasks(connection, tasks, now)
        connection.execute(insert(Approval), rows)
    return ids


def answers() -> dict[tuple[UUID, str], Any]:
    with RUNTIME.engine.connect() as connection:
        return {(row.agent_id, row.call_id): row for row in connection.execute(select(Approval))}


def test_a_rule_goes_once_through_the_open_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_answers, "CHUNK_SIZE", 3)
    tasks = waiting_tasks(5)
    ax.approvals.add_rule_sync("refund", ["amount>=1"], scope={"tenant": "acme"}, by="Ada")
    found = answers()
    assert {found[agent_id, "call_1"].status for agent_id in tasks} == {"approved"}
    assert {found[agent_id, "call_0"].status for agent_id in tasks} == {"pending"}
    ax.approvals.add_rule_sync("refund", [], scope={"tenant": "acme"})
    assert {row.status for row in answers().values()} == {"approved"}


def test_no_answer_is_lost_while_rules_people_and_workers_meet() -> None:
    tasks = waiting_tasks(40)
    start = Barrier(5)
    engine, store = RUNTIME.engine, record_store()

    def make_rule() -> None:
        ax.approvals.add_rule_sync("refund", ["amount>=1"], scope={"tenant": "acme"})

    def decide(chosen: list[UUID], decision: Callable[..., bool]) -> None:
        for agent_id in chosen:
            decision(agent_id, "call_0")
            decision(agent_id, "call_1")

    def end_tasks() -> None:
        for begin in range(0, len(tasks), 10):
            chosen = tasks[begin : begin + 10 : 2]
            endings = [Ending(Lease(agent_id, 0), Status.COMPLETE, "Done.") for agent_id in reversed(chosen)]
            store.record([], endings, now=utc_now(), result_ttl=60)

    def ask_more() -> None:
        for agent_id in tasks:
            try:
                ask(engine, Lease(agent_id, 0), [question(2)], utc_now())
            except LeaseLostError:
                continue

    def with_the_others(work: Callable[..., Any], *arguments: Any) -> Any:
        start.wait()
        return work(*arguments)

    with ThreadPoolExecutor(5) as threads:
        jobs = [
            threads.submit(with_the_others, make_rule),
            threads.submit(with_the_others, decide, tasks, ax.approve_sync),
            threads.submit(with_the_others, decide, tasks[::-1], ax.reject_sync),
            threads.submit(with_the_others, end_tasks),
            threads.submit(with_the_others, ask_more),
        ]
        for job in jobs:
            job.result()
    with engine.connect() as connection:
        ended = set(
            connection.execute(
                select(ACTIVITY.c.agent_id).where(ACTIVITY.c.status == Status.COMPLETE)
            ).scalars()
        )
    assert len(ended) == 20
    for (agent_id, call_id), row in answers().items():
        assert row.status in ("approved", "rejected") or agent_id in ended, call_id
    with Session(engine) as db:
        for agent_id in set(tasks) - ended:
            detail = ax.activity.detail(db, agent_id)
            told = [line.message for line in detail.logs if line.message.startswith(("Approved", "Rejected"))]
            assert len(told) == CALLS + 1, "one line for each answer"

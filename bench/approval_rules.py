"""Command `python -m bench rules`: time for a new rule to answer the questions of many tasks that wait.

The figures: seconds in all, milliseconds of the longest transaction that holds locks, and milliseconds of a decision
that a second person makes meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, insert, select

import agentexec as ax
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.journal import rule_answers
from agentexec.journal.models import Approval
from agentexec.journal.questions import Question, Terms
from agentexec.task import new_agent_id
from bench import sample_record
from bench.activities import opened

TARGETS = ("sqlite", "postgres", "mariadb")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench rules", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS[:2]))
    parser.add_argument("--questions", type=int, default=100_000)
    options = parser.parse_args(arguments)
    for target in options.targets:
        with opened(target, None) as engine:
            _measure(engine, options.questions)
    return 0


def _measure(engine: Engine, number: int) -> None:
    others = _fill(engine, number, "acme"), _fill(engine, 100, "other")
    longest = 0.0
    answer = rule_answers._answer_calls_of

    def timed(*arguments: Any) -> Any:
        nonlocal longest
        began = time.perf_counter()
        answered = answer(*arguments)
        longest = max(longest, time.perf_counter() - began)
        return answered

    rule_answers._answer_calls_of = timed
    sample_record.analyze(engine)
    decisions: list[float] = []
    done = threading.Event()
    decider = threading.Thread(target=_decide, args=(others[1], decisions, done))
    decider.start()
    began, processor = time.perf_counter(), time.process_time()
    ax.approvals.add_rule_sync("refund", ["amount<=100"], scope={"tenant": "acme"})
    took, processor = time.perf_counter() - began, time.process_time() - processor
    done.set()
    decider.join()
    rule_answers._answer_calls_of = answer
    with engine.connect() as connection:
        answered = connection.scalar(
            select(func.count())
            .select_from(Approval)
            .where(Approval.status == "approved", Approval.rule_id.is_not(None))
        )
    print(
        f"{engine.dialect.name}: {answered:,} of {number:,} questions in {took:.1f} s ({processor:.1f} s of this process), longest transaction "
        f"{1000 * longest:.0f} ms, {len(decisions)} decisions meanwhile, median "
        f"{1000 * statistics.median(decisions or [0]):.0f} ms, slowest {1000 * max(decisions, default=0):.0f} ms",
        flush=True,
    )


def _decide(tasks: Sequence[UUID], decisions: list[float], done: threading.Event) -> None:
    """Answer other questions one after another, and note what each decision took."""
    for agent_id in tasks:
        if done.wait(0.1):
            return
        began = time.perf_counter()
        ax.approve_sync(agent_id, "call_1")
        decisions.append(time.perf_counter() - began)


def _fill(engine: Engine, number: int, tenant: str) -> list[UUID]:
    """Add tasks that wait for an answer to one question each."""
    now = utc_now()
    terms = Terms(follows_rules=True, schema="{}")
    question = Question("Clerk#1/call_1", 0, "approval", "refund", '{"to":"Ann","amount":50}', terms=terms)
    ids = [new_agent_id() for _ in range(number)]
    for chunk in chunks(ids, 5000):
        tasks = [
            NewTask(
                agent_id=agent_id, task_name="clerk", context="{}", queue=ax.CONF.queue_name, priority=1,
                run_at=now + timedelta(days=9000), metadata={"tenant": tenant}, idempotency_key=None, message="Waiting.",
            )
            for agent_id in chunk
        ]  # fmt: skip
        with engine.begin() as connection:
            insert_tasks(connection, tasks, now)
            connection.execute(insert(Approval), [question.values(agent_id, now) for agent_id in chunk])
    return ids

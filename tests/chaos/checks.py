"""The checks at the end of a run: what the record, the queue and the ledger must agree on once everything is quiet."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from agentexec.activity.models import Activity, ActivityLog, Schedule
from agentexec.db.transactions import reading
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from agentexec.webhooks.record import FAILED, MESSAGE
from tests.chaos.ledger import Line, read_ledger
from tests.chaos.names import EFFECTS, LIMIT, LIMITED, LOCKED, TICK
from tests.chaos.world import SETTINGS, World
from tests.faults.ledger import Findings, audit

FINAL = (Status.COMPLETE, Status.ERROR, Status.CANCELED)
EXPECTED = {"hopeless": {"error"}, "poison": {"error"}}
"""Statuses in which tasks must end that do not complete; canceled ones may be CANCELED, too."""

CALL = "on_failure."
"""Beginning of the names of the tasks that call failure handlers."""

Row = Any


class Evidence:
    """Record and ledger of a run that is over."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events = read_ledger(world.deployment.ledger_file)
        poisons = {line["key"] for line in self.of("offered") if line["kind"] == "poison"}
        self._poisoned = {line["pid"] for line in self.of("start") if line.get("key") in poisons}
        with reading(RUNTIME.engine) as connection:
            table: Any = Activity.__table__
            self.rows: dict[str, Row] = {row.agent_id.hex: row for row in connection.execute(select(table))}
            log: Any = ActivityLog.__table__
            lines = connection.execute(
                select(log.c.activity_id, log.c.status, log.c.message).order_by(log.c.id)
            )
            self.logs: dict[str, list[Row]] = defaultdict(list)
            for line in lines:
                self.logs[line.activity_id.hex].append(line)
            self.effects = Counter(
                (row.name, row.step) for row in connection.execute(text(f"SELECT name, step FROM {EFFECTS}"))
            )
            self.locked = connection.execute(select(LOCKED).order_by(LOCKED.c.id)).all()
            self.given_up = connection.execute(select(MESSAGE).where(MESSAGE.c.state == FAILED)).all()
            self.schedule = connection.execute(select(Schedule.__table__)).one()

    def of(self, event: str) -> list[Line]:
        """Return the lines of an event."""
        return self.events.get(event, [])

    def key_of(self, row: Row) -> str:
        """Return the key by which a task is known in the ledger."""
        return str(json.loads(row.context).get("key", row.agent_id))

    def died_beside_poison(self, row: Row) -> bool:
        """Return True for a task whose last crash was that of a process in which a poison task ran."""
        if (
            row.agent_type == "poison"
            or "for the" not in str(row.error)
            or "it is not tried again" not in str(row.error)
        ):
            return False
        key = self.key_of(row)
        pids = [line["pid"] for line in self.of("start") if key in (line.get("key"), line.get("agent"))]
        return bool(pids) and pids[-1] in self._poisoned

    def numbers(self) -> dict[str, float]:
        """Return figures for the report."""
        ends = Counter(line["id"] for line in self.of("end"))
        return {
            "offers accepted": len(self.of("accepted")),
            "handlers started": len(self.of("start")),
            "attempts": sum(row.attempt for row in self.rows.values()),
            "crashes counted": sum(row.crashes for row in self.rows.values()),
            "tasks whose handler came to its end more than once": sum(count > 1 for count in ends.values()),
            "steps interrupted": len(self.of("interrupted")),
            "innocent tasks ended by the crashes of others": sum(
                map(self.died_beside_poison, self.rows.values())
            ),
            "tasks whose push failed": sum(len(line["ids"]) for line in self.of("unpushed")),
            "webhooks delivered": self.world.receiver.delivered.total(),
            "results awaited": len(self.of("got")),
        }


Check = Callable[[Evidence], Iterator[str]]


def accepted_tasks_have_ended(evidence: Evidence) -> Iterator[str]:
    """Yield tasks that were accepted and are not in the record, and those in the record that have not ended."""
    for line in evidence.of("accepted"):
        if line["id"] not in evidence.rows:
            yield f"{line['kind']} {line['key']} was accepted and is not in the record"
    for row in evidence.rows.values():
        if row.status not in FINAL:
            yield f"{describe(row)} has not ended: {evidence.logs[row.agent_id.hex][-1].message!r}"


def tasks_end_as_they_must(evidence: Evidence) -> Iterator[str]:
    """Yield tasks with another ending than theirs, or with several."""
    canceled = {line["id"] for line in evidence.of("canceled")}
    maybe = {line["id"] for line in evidence.of("cancels")}
    expires = {line["key"] for line in evidence.of("expires")}
    for agent_id, row in evidence.rows.items():
        endings = [line for line in evidence.logs[agent_id] if line.status in FINAL]
        if row.status in FINAL and len(endings) != 1:
            yield f"{describe(row)} has {len(endings)} endings"
        right = set(EXPECTED.get(row.agent_type, {"complete"}))
        if agent_id in canceled:
            right = {"canceled"}
        elif (
            agent_id in maybe
            or evidence.key_of(row) in expires
            or (row.parent_id is not None and not row.agent_type.startswith(CALL))
        ):
            right |= {"canceled"}
        if row.status is Status.ERROR and evidence.died_beside_poison(row):
            continue  # many crashes beside others end a task that caused none: docs/reliability.md
        if row.status in FINAL and str(row.status) not in right:
            yield f"{describe(row)} must be {' or '.join(sorted(right))}: {str(row.error)[-300:]}"


def offers_are_tasks_once(evidence: Evidence) -> Iterator[str]:
    """Yield offers with several tasks, tasks of offers that were rolled back, and tasks that nobody offered."""
    offered = {line["key"] for line in evidence.of("offered")}
    taken_back = {line["key"] for line in evidence.of("taken-back")}
    keys = Counter(
        evidence.key_of(row)
        for row in evidence.rows.values()
        if row.agent_type not in (TICK, "audit", "burst") and not row.agent_type.startswith(CALL)
    )
    for key, count in keys.items():
        if count > 1:
            yield f"{key} has {count} tasks"
        if key in taken_back:
            yield f"{key} was rolled back and is a task"
        if key not in offered and key.rpartition(".")[0] not in offered:
            yield f"{key} was never offered"


def no_epoch_runs_twice(evidence: Evidence) -> Iterator[str]:
    """Yield executions that were started twice under one lease, or under a lease that the record does not know."""
    starts = Counter((line["id"], line["epoch"]) for line in evidence.of("start") if "epoch" in line)
    for (agent_id, epoch), count in starts.items():
        row = evidence.rows.get(agent_id)
        if row is None:
            yield f"task {agent_id} ran and is not in the record"
        elif count > 1:
            yield f"{describe(row)} was started {count} times under epoch {epoch}"
        elif epoch > row.epoch:
            yield f"{describe(row)} ran under epoch {epoch}, above that of the record"


def complete_tasks_have_run(evidence: Evidence) -> Iterator[str]:
    """Yield tasks that are complete and never came to their end."""
    ended = {line["id"] for line in evidence.of("end")}
    for agent_id, row in evidence.rows.items():
        if row.status is Status.COMPLETE and row.agent_type != "audit" and agent_id not in ended:
            yield f"{describe(row)} never came to its end"


def steps_run_once(evidence: Evidence) -> Iterator[str]:
    """Yield steps whose effects were repeated against their policy, and values that changed."""
    once = Counter((line["key"], line["step"]) for line in evidence.of("step-once"))
    yield from (f"step {key} of policy fail ran {count} times" for key, count in once.items() if count > 1)
    keys: dict[Any, set[str]] = defaultdict(set)
    for line in evidence.of("step-again"):
        keys[line["key"], line["step"]].add(line["idempotency_key"])
    yield from (
        f"step {step} had {len(found)} idempotency keys" for step, found in keys.items() if len(found) > 1
    )
    yield from (f"step {step} was booked {n} times" for step, n in evidence.effects.items() if n > 1)
    values: dict[Any, set[str]] = defaultdict(set)
    for line in evidence.of("values"):
        values[line["key"], line["step"]].add(str(line["values"]))
    yield from (f"step {step} had the values {found}" for step, found in values.items() if len(found) > 1)
    for row in evidence.rows.values():
        if row.agent_type == "steps" and row.status is Status.COMPLETE:
            job = json.loads(row.context)
            missing = [n for n in range(job["number"]) if (job["key"], n) not in evidence.effects]
            if missing:
                yield f"{describe(row)} is complete without its bookings {missing}"


def locks_never_overlap(evidence: Evidence) -> Iterator[str]:
    """Yield tasks of a lock between whose rows another one has written, and rows that are missing or repeated."""
    locks: dict[str, list[str]] = defaultdict(list)
    steps: dict[str, list[int]] = defaultdict(list)
    for row in evidence.locked:
        locks[row.lock].append(row.name)
        steps[row.name].append(row.step)
    for lock, names in locks.items():
        turns = [name for name, _ in itertools.groupby(names)]
        for name, count in Counter(turns).items():
            if count > 1:
                yield f"{name} shared lock {lock} with others: {[turn[-6:] for turn in turns][:60]}"
    for row in evidence.rows.values():
        if row.agent_type == "locked" and row.status is Status.COMPLETE:
            job = json.loads(row.context)
            if steps[job["key"]] != list(range(job["number"])):
                yield f"{describe(row)} wrote its rows {steps[job['key']]}"


def locks_keep_their_order(evidence: Evidence) -> Iterator[str]:
    """Yield tasks of a lock that started after one that was offered when they had been accepted.

    A task that could not be pushed joins the line when the reconciler pushes it: it may have been overtaken by then.
    """
    unpushed = {agent_id for line in evidence.of("unpushed") for agent_id in line["ids"]}
    first: dict[str, float] = {}
    for line in evidence.of("start"):
        first.setdefault(line.get("key", ""), line.get("at", 0.0))
    offered = [line for line in evidence.of("offered") if line["kind"] == "locked" and line["key"] in first]
    for task in evidence.of("accepted"):
        if task["kind"] != "locked" or task["key"] not in first or task["id"] in unpushed:
            continue
        for later in offered:
            is_later = later["lock"] == task["lock"] and later["at"] > task["at"]
            if is_later and first[later["key"]] < first[task["key"]]:
                yield f"{later['key']} overtook {task['key']} ({task['id']}) of lock {task['lock']}"
                break


def agents_have_each_effect_once(evidence: Evidence) -> Iterator[str]:
    """Yield what the audit of the ledger's agents finds."""
    found = Findings(evidence.world.target, 0)
    audit(
        evidence.world.deployment,
        {
            evidence.key_of(row): UUID(agent_id)
            for agent_id, row in evidence.rows.items()
            if row.agent_type == "audit" and row.status in FINAL and not evidence.died_beside_poison(row)
        },
        found,
    )
    yield from (f"agents: {violation}" for violation in found.violations)


def every_tick_has_one_task(evidence: Evidence) -> Iterator[str]:
    """Yield ticks with several tasks, and tasks that no tick counts."""
    ticks = Counter(
        evidence.logs[agent_id][0].message
        for agent_id, row in evidence.rows.items()
        if row.agent_type == TICK
    )
    yield from (f"{message!r} {count} times" for message, count in ticks.items() if count > 1)
    if ticks.total() != evidence.schedule.runs:
        yield f"the schedule counts {evidence.schedule.runs} runs and has {ticks.total()} tasks"
    if not ticks:
        yield "the schedule never ticked"


def failures_call_their_handler_once(evidence: Evidence) -> Iterator[str]:
    """Yield failures for which the handler has no task, or several."""
    calls = Counter(
        UUID(json.loads(row.context)["agent_id"]).hex
        for row in evidence.rows.values()
        if row.agent_type.startswith(CALL)
    )
    for agent_id, row in evidence.rows.items():
        expected = row.agent_type == "hopeless" and row.status is Status.ERROR
        if calls[agent_id] != expected:
            yield f"{describe(row)} has {calls[agent_id]} calls of its failure handler"


def expired_tasks_have_not_run(evidence: Evidence) -> Iterator[str]:
    """Yield tasks that were canceled because nobody had started them in time, and that somebody has started."""
    started = {line["id"] for line in evidence.of("start") if "id" in line}
    expires = {line["key"] for line in evidence.of("expires")}
    for agent_id, row in evidence.rows.items():
        if row.status is Status.CANCELED and agent_id in started and evidence.key_of(row) in expires:
            yield f"{describe(row)} has expired and was started"


def bursts_run_with_the_last_context(evidence: Evidence) -> Iterator[str]:
    """Yield bursts whose last run was not that of the last enqueue."""
    ran: dict[str, int] = {}
    for line in evidence.of("start"):
        if "number" in line:
            ran[line["key"]] = max(line["number"], ran.get(line["key"], -1))
    merged: dict[str, int] = {}
    for line in evidence.of("merged"):
        merged[line["key"]] = line["number"]
    for key, number in merged.items():
        if ran.get(key, -1) < number:
            yield f"burst {key} ran with context {ran.get(key)} at last, and {number} was accepted"


def webhooks_were_delivered(evidence: Evidence) -> Iterator[str]:
    """Yield ends of which nobody was told, messages that were given up, and those with a wrong signature."""
    receiver = evidence.world.receiver
    for line in evidence.of("notifies"):
        row = evidence.rows.get(line["id"])
        if row is not None and row.status in FINAL and not receiver.delivered[line["id"]]:
            yield f"nobody was told of the end of {describe(row)}"
    yield from (f"message {message} had a wrong signature" for message in receiver.wrong)
    yield from (f"message {row.message_id} was given up: {row.outcome}" for row in evidence.given_up)


def limits_hold(evidence: Evidence) -> Iterator[str]:
    """Yield moments at which more tasks ran than their limit allows. A server that loses its data forgets for moments who runs."""
    if evidence.world.redis is not None or evidence.world.dynamodb is not None:
        return
    names = {agent_id for agent_id, row in evidence.rows.items() if row.agent_type == LIMITED}
    changes: list[tuple[float, int]] = []
    longest = SETTINGS["lease_seconds"] / 2
    ends = {(line["id"], line["epoch"]): line["at"] for line in evidence.of("end") if line.get("id") in names}
    for line in evidence.of("start"):
        if line.get("id") not in names:
            continue
        # One that was killed or stopped for long, beside which another one may run, does not count.
        end = ends.get((line["id"], line["epoch"]), line["at"])
        if line["at"] < end < line["at"] + longest:
            changes += [(line["at"], 1), (end, -1)]
    running = list(itertools.accumulate(change for _, change in sorted(changes)))
    if running and max(running) > LIMIT:
        yield f"{max(running)} tasks of {LIMITED} ran at once, and {LIMIT} may"


def waiters_were_told(evidence: Evidence) -> Iterator[str]:
    """Yield results that a producer waited for and did not get, although it lives, or got wrong."""
    for line in evidence.of("got"):
        if line["key"] not in line["value"]:
            yield f"the result of {line['key']} is {line['value']!r}"
    for line in evidence.of("got-error"):
        yield f"the wait for {line['key']} ended with {line['error']}"
    yield from (line["error"] for line in evidence.of("producer-error"))


CHECKS: tuple[Check, ...] = (
    accepted_tasks_have_ended,
    tasks_end_as_they_must,
    offers_are_tasks_once,
    no_epoch_runs_twice,
    complete_tasks_have_run,
    steps_run_once,
    locks_never_overlap,
    locks_keep_their_order,
    agents_have_each_effect_once,
    every_tick_has_one_task,
    failures_call_their_handler_once,
    expired_tasks_have_not_run,
    bursts_run_with_the_last_context,
    webhooks_were_delivered,
    limits_hold,
    waiters_were_told,
)


def describe(row: Row) -> str:
    """Return a task for people: kind, key, id and status."""
    key = json.loads(row.context)["key"]
    return (
        f"{row.agent_type} {key} ({row.agent_id}, {row.status}, attempt {row.attempt}, {row.crashes} crashes)"
    )

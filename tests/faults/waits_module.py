"""Tasks that make one call of ours each, while a server is away. The ledger counts their starts, calls and ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax
from tests.faults.worker_module import write_ledger

pool = ax.Pool()


class Call(BaseModel):
    """A call: its name in CALLS, the file that opens the gate to it, and the tasks that it is about."""

    name: str
    gate: str
    queued: str = ""
    """Task that is to be canceled."""
    failed: str = ""
    """Task that is to be retried."""
    activity: str = ""
    """Activity that the application keeps."""
    done: str = ""
    """Task that has ended."""


class Runner(ax.BaseAgentRunner):
    """Runner that only offers its steps."""

    async def run(self, agent: Any, input: Any) -> None: ...


@pool.task("child")
async def child(agent_id: UUID, context: dict[str, Any]) -> Any:
    write_ledger("child", context["of"].replace(" ", "_"))
    await asyncio.sleep(context.get("seconds", 0))
    return context["of"]


@pool.task("flaky")
def flaky(agent_id: UUID, context: Call) -> str:
    """Fail the first time; complete after the gate was opened."""
    if not Path(context.gate).exists():
        raise ValueError("not yet")
    return "retried"


async def in_branches(agent_id: UUID, call: Call) -> Any:
    tasks = await asyncio.gather(*(ax.enqueue("child", {"of": call.name, "number": n}) for n in range(3)))
    return len({task.agent_id for task in tasks})


async def in_step(agent_id: UUID, call: Call) -> Any:
    async def body() -> str:
        return await ax.get_result(await ax.enqueue("child", {"of": call.name}))

    return await Runner(agent_id).step("one", body)


async def in_transaction(agent_id: UUID, call: Call) -> Any:
    """Keep a transaction open while the gate opens; on SQLite it would be in the way of all others."""

    def body() -> int:
        with ax.transaction() as db:
            ax.activity.create(call.name, session=db)
            while ax.get_engine().dialect.name != "sqlite" and not is_open(call):
                time.sleep(0.02)
        return 1

    return await Runner(agent_id).step("one", body, policy="transactional")


def count_completed(agent_id: UUID, call: Call) -> int:
    tasks = ax.enqueue_many_sync("child", [{"of": call.name}] * 2)
    return len([done.result() for done in ax.as_completed_sync(tasks)])


async def follow(agent_id: UUID, call: Call) -> str:
    events = [event.type async for event in ax.activity.stream(call.done)]
    return events[-1]


async def receive(agent_id: UUID, call: Call) -> Any:
    await ax.send_event("own", str(agent_id), 1)
    return await ax.wait_for_event("own", str(agent_id))


def receive_sync(agent_id: UUID, call: Call) -> Any:
    ax.send_event_sync("own", str(agent_id), 1)
    return ax.wait_for_event_sync("own", str(agent_id))


ASYNC: dict[str, tuple[Callable[[UUID, Call], Any], Any]] = {
    "enqueue": (lambda agent_id, call: ax.enqueue("child", {"of": call.name}), None),
    "enqueue with key": (
        lambda agent_id, call: ax.enqueue("child", {"of": call.name}, idempotency_key=call.name),
        None,
    ),
    "enqueue_many": (lambda agent_id, call: ax.enqueue_many("child", [{"of": call.name}] * 3), None),
    "map": (lambda agent_id, call: ax.map("child", [{"of": call.name}] * 3), ["map"] * 3),
    "map in flight": (
        lambda agent_id, call: ax.map("child", [{"of": call.name, "seconds": 3}] * 3),
        ["map in flight"] * 3,
    ),
    "gather": (lambda agent_id, call: ax.gather(call.done, call.done), ["done", "done"]),
    "get_result": (lambda agent_id, call: ax.get_result(call.done), "done"),
    "cancel": (lambda agent_id, call: ax.cancel(call.queued), True),
    "retry": (lambda agent_id, call: ax.retry(call.failed), True),
    "Tracker": (lambda agent_id, call: ax.Tracker(call.name).incr(), 1),
    "send_event": (lambda agent_id, call: ax.send_event(call.name, "", 1), 0),
    "wait_for_event": (receive, 1),
    "sleep": (lambda agent_id, call: ax.sleep(0.2), None),
    "stream": (follow, "result"),
    "branches": (in_branches, 3),
    "step": (in_step, "step"),
    "transaction": (in_transaction, 1),
    "activity": (lambda agent_id, call: ax.activity.update(call.activity, call.name), None),
    "report": (lambda agent_id, call: Runner(UUID(call.activity)).report(call.name), None),
}
"""Calls of async handlers by name, with the results of their tasks; None is not looked at."""

PLAIN: dict[str, tuple[Callable[[UUID, Call], Any], Any]] = {
    "enqueue_sync": (lambda agent_id, call: ax.enqueue_sync("child", {"of": call.name}), None),
    "enqueue_many_sync": (
        lambda agent_id, call: ax.enqueue_many_sync("child", [{"of": call.name}] * 3),
        None,
    ),
    "map_sync": (lambda agent_id, call: ax.map_sync("child", [{"of": call.name}] * 3), ["map_sync"] * 3),
    "gather_sync": (lambda agent_id, call: ax.gather_sync(call.done), ["done"]),
    "as_completed_sync": (count_completed, 2),
    "get_result_sync": (lambda agent_id, call: ax.get_result_sync(call.done), "done"),
    "cancel_sync": (lambda agent_id, call: ax.cancel_sync(call.queued), True),
    "retry_sync": (lambda agent_id, call: ax.retry_sync(call.failed), True),
    "Tracker sync": (lambda agent_id, call: ax.Tracker(call.name).incr(), 1),
    "send_event_sync": (lambda agent_id, call: ax.send_event_sync(call.name, "", 1), 0),
    "wait_for_event_sync": (receive_sync, 1),
    "sleep_sync": (lambda agent_id, call: ax.sleep_sync(0.2), None),
    "stream sync": (
        lambda agent_id, call: [event.type for event in ax.activity.stream(call.done)][-1],
        "result",
    ),
    "create": (lambda agent_id, call: ax.activity.create(call.name), None),
    "update": (lambda agent_id, call: ax.activity.update(call.activity, call.name), None),
    "complete": (lambda agent_id, call: ax.activity.complete(call.activity, call.name), None),
}
"""The same for handlers that are plain functions."""

CHILDREN = {
    **dict.fromkeys(["enqueue", "enqueue with key", "enqueue_sync", "step"], 1),
    "as_completed_sync": 2,
    **dict.fromkeys(["enqueue_many", "enqueue_many_sync", "map", "map in flight", "map_sync", "branches"], 3),
}
"""Number of children that each call enqueues."""

BEFORE_GATE = ("map in flight", "transaction")
"""Calls that are under way when the gate opens."""

BLOCKING = ("Tracker", "activity")
"""Calls of async handlers that block the event loop: they come last, so that the others are under way."""


def is_open(call: Call) -> bool:
    return Path(call.gate + "-for-blocking" * (call.name in BLOCKING)).exists()


def _named(call: Call) -> str:
    return call.name.replace(" ", "_")


@pool.task("call")
async def run_call(agent_id: UUID, context: Call) -> Any:
    write_ledger("start", _named(context))
    while context.name not in BEFORE_GATE and not is_open(context):  # noqa: ASYNC110 - opened by the test
        await asyncio.sleep(0.02)
    write_ledger("call", _named(context))
    answer = ASYNC[context.name][0](agent_id, context)
    answer = await answer if asyncio.iscoroutine(answer) else answer
    write_ledger("end", _named(context))
    return None if ASYNC[context.name][1] is None else answer


@pool.task("call_plain")
def run_plain_call(agent_id: UUID, context: Call) -> Any:
    write_ledger("start", _named(context))
    while not is_open(context):
        time.sleep(0.02)
    write_ledger("call", _named(context))
    answer = PLAIN[context.name][0](agent_id, context)
    write_ledger("end", _named(context))
    return None if PLAIN[context.name][1] is None else answer


if __name__ == "__main__":
    pool.start()

"""Recorded runs as offline tests: the handler runs again, models and tools are answered from the record."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select

from agentexec.activity.changes.statements import RESULT
from agentexec.activity.mailbox import Mailbox
from agentexec.client.cancel import cancel_sync
from agentexec.client.enqueue import entry_of
from agentexec.client.run_records import RunRecord, check_run, dump_run, run_facts, write_run
from agentexec.config import CONF
from agentexec.db.transactions import reading, writing
from agentexec.errors import ReplayDivergedError, UsageError
from agentexec.journal.watch import ReplayWatch, difference
from agentexec.pool import Pool
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from agentexec.testing import AsyncHarness, TaskRecord
from agentexec.values.presentation import Presenter

_LOG = logging.getLogger("agentexec.worker")


class Replay(NamedTuple):
    """The replay of a record: the task's record, what its models read, its result as JSON data, and a divergence if any.

    `new_step` says which step the code has added, if the replay was to stop there.
    """

    task: TaskRecord
    inputs: dict[str, Any]
    result: Any
    divergence: ReplayDivergedError | None
    new_step: str | None = None


def replay(file: str | Path, pool: Pool, *, update: bool = False) -> TaskRecord:
    """Replay a run that `agentexec export` has written, without calling a model or a tool.

    The task's handler runs with the code at hand. Its models and tools are answered from the record, in a database of its
    own. What the code asks for is compared with what was recorded: the input of each model call, the arguments of each
    call, the result.

    Args:
        file: The file of the run.
        pool: The pool with the task.
        update: True to accept other inputs of models and another result: they are written into the file.

    Returns:
        The record of the replayed task.

    Raises:
        ReplayDivergedError: The code went another way; the message shows what was recorded and what came now.
        UsageError: The file is not an exported run, or the pool has no such task, or an event loop runs.
    """
    path = Path(file)
    try:
        record = check_run(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"Cannot read the run {path}: {error}.") from None
    done = replay_record(record, pool, accepts=update, any_input=True)
    if done.divergence is not None:
        raise done.divergence
    if update:
        changed = {**record, "inputs": done.inputs, "result": done.result}
        path.write_text(dump_run(changed), encoding="utf-8")
    return done.task


def replay_record(
    record: RunRecord,
    pool: Any,
    *,
    accepts: bool = False,
    any_input: bool = False,
    stops: bool = False,
) -> Replay:
    """Replay a record. `stops`: at the last recorded step or at the first new one; see `ReplayWatch`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_replay(record, pool, accepts, any_input, stops))
    raise UsageError("An event loop is running; call replay() from a plain function, or in a thread.")


async def _replay(record: RunRecord, pool: Any, accepts: bool, any_input: bool, stops: bool) -> Replay:
    pool.registry.get(record["task"])
    present = Presenter(CONF.secrets).present
    is_open = record["status"] != Status.COMPLETE.name
    watch = ReplayWatch(
        run_facts(record), record["inputs"], present, is_open=is_open, stops=stops, accepts=accepts
    )
    async with AsyncHarness(pool) as harness:
        RUNTIME.replay = watch
        # The end of the record and a divergence are answers here, not failures to be logged.
        _LOG.addFilter(_drop)
        try:
            task, canceled = await _run(harness, record, any_input)
        finally:
            RUNTIME.replay = None
            _LOG.removeFilter(_drop)
        result = await RUNTIME.run_in_thread(_read_result, task.agent_id, present)
    if stops and (canceled or task.status is Status.QUEUED):
        watch.note_new_wait()
    divergence = watch.divergence or _find_divergence(watch, record, task)
    if divergence is None and not (is_open or stops or accepts) and result != record["result"]:
        divergence = _diverged(record, f"the result differs.\n{difference(record['result'], result)}")
    return Replay(task, watch.actual_inputs, result, divergence, watch.new_step)


async def _run(harness: AsyncHarness, record: RunRecord, any_input: bool) -> tuple[TaskRecord, list[UUID]]:
    """Run the task of a record; return its record, and the children that it waited for in vain."""
    canceled: list[UUID] = []

    def cancel_all(agent_ids: Sequence[UUID]) -> None:
        canceled.extend(agent_ids)
        for agent_id in agent_ids:
            RUNTIME.submit(lambda agent_id=agent_id: cancel_sync(agent_id))

    def write() -> UUID:
        with writing(RUNTIME.engine) as connection:
            new = write_run(connection, record, any_input=any_input)
        RUNTIME.backend.push(CONF.queue_name, [entry_of(new)._replace(epoch=1)])
        return new.agent_id

    agent_id = await RUNTIME.run_in_thread(write)
    # Only the task itself runs: a child that it waits for, and that is not in the record, is canceled.
    RUNTIME.get_shared(Mailbox, _no_mailbox).on_watch(cancel_all)
    await harness.run_only(agent_id)
    return harness.task(agent_id), canceled


def _find_divergence(watch: ReplayWatch, record: RunRecord, task: TaskRecord) -> ReplayDivergedError | None:
    if watch.ended:
        return None
    if task.status is Status.COMPLETE:
        missed = ", ".join(watch.missed[:5])
        return _diverged(record, f"recorded steps were not asked for: {missed}.") if missed else None
    if task.status is Status.ERROR and record["status"] == Status.ERROR.name and not watch.missed:
        return None  # it failed then as well
    if task.error is not None:
        return _diverged(record, f"it failed: {task.error.splitlines()[0]}")
    return None


def _diverged(record: RunRecord, what: str) -> ReplayDivergedError:
    return ReplayDivergedError(
        f"The replay of task {record['task']} went another way: {what}",
        agent_id=UUID(record["agent_id"]),
        path="",
    )


def _read_result(agent_id: UUID, present: Callable[[Any], Any]) -> Any:
    with reading(RUNTIME.engine) as connection:
        text = connection.execute(select(RESULT.c.value).where(RESULT.c.agent_id == agent_id)).scalar()
    return None if text is None else present(json.loads(text))


def _drop(_record: logging.LogRecord) -> bool:
    return False


def _no_mailbox() -> Mailbox:
    raise AssertionError("unreachable: the harness has opened it")

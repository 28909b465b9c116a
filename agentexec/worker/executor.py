"""One attempt of a task, from its record to its ending."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import random
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.reports import clean, update
from agentexec.client.new_task import check_payload_size
from agentexec.config import CONF
from agentexec.errors import AgentexecError, ContextInvalidError, Postponed
from agentexec.journal.recorder import current_scope, enter_task
from agentexec.policy import retry_delay
from agentexec.redaction import redact
from agentexec.registry import Registry, validate_context
from agentexec.task import Status, TaskDefinition

MAX_ERROR = 20_000
"""Characters of a traceback that are kept: its end, where the reason stands."""

_anything: TypeAdapter[Any] = TypeAdapter(Any)


async def execute_attempt(registry: Registry, admitted: Admitted, threads: ThreadPoolExecutor) -> Ending:
    """Run a task's handler once and say how it ended.

    Lets CancelledError through only where the caller has canceled; every other error becomes an ending.
    """
    enter_task(admitted.lease, admitted.attempt, max(0, admitted.attempt - 1 - admitted.crashes.total))
    definition = registry.find(admitted.task_name)
    if definition is None:
        known = ", ".join(sorted(task.name for task in registry)) or "none"
        return permanent_failure(
            admitted, f"no worker has a task named {admitted.task_name}; this one's tasks: {known}"
        )
    try:
        context = _context(definition, admitted.context)
    except ContextInvalidError as error:
        return permanent_failure(admitted, str(error))
    try:
        async with asyncio.timeout(definition.timeout) as limit:
            value = await _call(definition, admitted, context, threads)
    except TimeoutError as error:
        if not limit.expired():
            return _failed(definition, admitted, error)
        return _failed(
            definition, admitted, TimeoutError(f"the attempt took longer than {definition.timeout} seconds")
        )
    except Postponed as later:
        return _postponed(admitted, later)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return _failed(definition, admitted, error)
    except BaseExceptionGroup as group:
        # From a TaskGroup, which wraps all that its tasks raise.
        found = _latest(group)
        return _failed(definition, admitted, group) if found is None else _postponed(admitted, found)
    _tell_untouched(admitted)
    try:
        result = dump_result(definition, value)
    except AgentexecError as error:
        # Not tried again: the same handler would most likely return the like, after the same work.
        return permanent_failure(admitted, str(error))
    return Ending(admitted.lease, Status.COMPLETE, CONF.activity_message_complete, result=result)


def _tell_untouched(admitted: Admitted) -> None:
    """Say in the task's log what was recorded for nothing: a run or step that now has another name was made again."""
    scope = current_scope()
    paths = scope.recorder.unclaimed_paths if scope is not None else []
    if paths:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        update(
            admitted.lease.agent_id,
            f"An earlier attempt has recorded {', '.join(paths[:3])}{more}, which this one did not ask for: the names and "
            "inputs of runs and steps must not change between attempts.",
        )


def dump_result(definition: TaskDefinition, value: Any) -> str | None:
    """A result as JSON, None for None. Raises PayloadTooLargeError, or AgentexecError for what is no JSON value."""
    if value is None:
        return None
    try:
        if isinstance(value, BaseModel):
            text = value.model_dump_json()
        else:
            text = (definition.result_type or _anything).dump_json(value, warnings="none").decode()
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise AgentexecError(
            f"the result of task {definition.name} cannot be written as JSON: {str(error).splitlines()[0]}"
        ) from None
    check_payload_size(text, f"the result of task {definition.name}")
    return text


def _context(definition: TaskDefinition, text: str | None) -> Any:
    if text is None and definition.context_type is None:
        return None
    return validate_context(definition, text or "{}")


async def _call(
    definition: TaskDefinition, admitted: Admitted, context: Any, threads: ThreadPoolExecutor
) -> Any:
    call = functools.partial(definition.handler, agent_id=admitted.lease.agent_id, context=context)
    if definition.is_async:
        return await call()
    # The context goes along, so that what the handler calls finds the running task.
    run = contextvars.copy_context().run
    value = await asyncio.get_running_loop().run_in_executor(threads, run, call)
    return await value if asyncio.iscoroutine(value) else value


def _postponed(admitted: Admitted, later: Postponed) -> Ending:
    """Back to the queue, and the attempt is not spent: waiting is no failure."""
    return Ending(
        admitted.lease,
        Status.QUEUED,
        clean(str(later)),
        delay=later.seconds,
        counts_as_attempt=False,
        awaited_kinds=later.waiting_for,
    )


def _latest(group: BaseExceptionGroup) -> Postponed | None:
    """Of a group that says nothing else, the last that a task waits for with its time known; else the first answer.

    What may come at any moment (an answer, an event) has a time only where it expires.
    """
    waits, others = group.split(Postponed)
    if waits is None or others is not None:
        return None
    found: list[Postponed] = []
    pending: list[BaseException] = [waits]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseExceptionGroup):
            pending.extend(one.exceptions)
        elif isinstance(one, Postponed):
            found.append(one)
    timed = [one for one in found if not one.waiting_for]
    if timed:
        return max(timed, key=lambda later: later.seconds)
    return min(found, key=lambda later: later.seconds)


def _failed(definition: TaskDefinition, admitted: Admitted, error: BaseException) -> Ending:
    reason = redact(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, CONF.secrets)
    failures = admitted.attempt - admitted.crashes.total
    delay = retry_delay(failures, definition.retries, random.random())  # noqa: S311 - spreads load, no secret
    # Cut after that: half of a secret would not be known as one.
    trace = redact("".join(traceback.format_exception(error))[-MAX_ERROR * 2 :], CONF.secrets)
    text = clean(f"{reason}\n{trace[-MAX_ERROR:]}", MAX_ERROR * 2)
    if delay is None:
        message = CONF.activity_message_error.format(error=reason)
        return Ending(admitted.lease, Status.ERROR, clean(message), error=text)
    message = f"Attempt {admitted.attempt} failed with {reason}; the next one starts in {delay:.0f} s."
    return Ending(admitted.lease, Status.QUEUED, clean(message), error=text, delay=delay)


def permanent_failure(admitted: Admitted, reason: str) -> Ending:
    """The end of a task that is not tried again."""
    reason = redact(reason, CONF.secrets)
    message = CONF.activity_message_error.format(error=reason)
    return Ending(admitted.lease, Status.ERROR, clean(message), error=clean(reason))

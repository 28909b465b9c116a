"""Execution of one attempt: runs a task's handler, and turns whatever comes of it into an ending."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.reports import clean, update
from agentexec.activity.failures import failed_line
from agentexec.arguments.budgets import effective_budget, load_budget
from agentexec.client.new_task import check_payload_size
from agentexec.config import CONF
from agentexec.conversations.turns import Turn
from agentexec.errors import (
    AgentexecError,
    ContextInvalidError,
    Postponed,
    TurnInterruptedError,
    UsageError,
)
from agentexec.journal.attempt_approvals import AttemptApprovals
from agentexec.journal.recorder import SETTLE_SECONDS, Recorder, enter_task
from agentexec.journal.user_errors import contain_generator_exit
from agentexec.payloads.offloading import is_large
from agentexec.payloads.sealing import is_payload, unseal
from agentexec.redaction import redact
from agentexec.registry import Registry, load_context
from agentexec.runtime import RUNTIME
from agentexec.task import Status, TaskDefinition
from agentexec.telemetry.current import CURRENT_ATTEMPT, RunningAttempt
from agentexec.worker.divergence import require_replayed, resolve_divergence
from agentexec.worker.forks import end_in_child
from agentexec.worker.retrying import next_delay
from agentexec.worker.turn_start import take_turn

MAX_ERROR = 20_000
"""Maximum number of characters kept of a traceback: those at its end, where the reason is."""

INTERRUPTED = "Interrupted by the next message of the conversation."

STRAY_CANCELLATION = "nobody canceled the task; something that its handler awaited was canceled"
"""Reason of an attempt that ended with a CancelledError of its own, as some clients leak them."""


async def execute_attempt(
    registry: Registry,
    admitted: Admitted,
    threads: ThreadPoolExecutor,
    *,
    is_stopping: Callable[[], bool],
) -> Ending:
    """Run a task's handler once, and return how it ended.

    Every error becomes an ending, whatever its class: an error that left this function would leave the task RUNNING. The
    only exception is the CancelledError of an attempt that the worker stops.

    Args:
        registry: The pool's tasks.
        admitted: The task.
        threads: Threads of plain handlers.
        is_stopping: True once the worker stops this attempt.
    """
    agent_id, name, attempt = admitted.lease.agent_id, admitted.task_name, admitted.attempt
    CURRENT_ATTEMPT.set(RunningAttempt(name, agent_id, attempt))
    recorder = enter_task(
        admitted.lease, admitted.attempt, max(0, admitted.attempt - 1 - admitted.crashes.total)
    )
    definition = registry.find(admitted.task_name)
    if definition is None:
        known = ", ".join(sorted(task.name for task in registry)) or "none"
        return permanent_failure(
            admitted, f"this worker has no task named {admitted.task_name}; its tasks are {known}"
        )
    recorder.approvals = AttemptApprovals(
        definition.approvals.within(registry.approvals),
        has_hooks=bool(registry.handlers_of_approval(name)),
    )
    try:
        recorder.budget.task = effective_budget(load_budget(admitted.budget), definition.budget)
    except ValueError as error:
        return permanent_failure(admitted, f"{error}; enqueue the task again")
    if definition.timeout is not None:
        recorder.patience.deadline = time.monotonic() + definition.timeout
    try:
        return await contain_generator_exit(_run_handler(definition, admitted, threads, recorder))
    except GeneratorExit:
        # Not the handler's, see `contain_generator_exit`: the event loop is gone, and nothing can be awaited.
        raise
    except BaseException as error:
        await _settle(recorder)
        if is_stopping() and _is_cancellation(error):
            raise asyncio.CancelledError from None
        return await _ended_by(error, definition, admitted, recorder)
    finally:
        recorder.patience.end()


async def _settle(recorder: Recorder) -> None:
    """Let requests that are paid for bring what they are recorded by: a streamed run may outlive its handler."""
    loop = asyncio.get_running_loop()
    if requests := {request for request in recorder.unfinished if request.get_loop() is loop}:
        await asyncio.wait(requests, timeout=SETTLE_SECONDS)


async def _ended_by(
    error: BaseException, definition: TaskDefinition, admitted: Admitted, recorder: Recorder
) -> Ending:
    """Return the ending of an attempt that an error has ended."""
    if isinstance(recorder.fault, TurnInterruptedError):
        return Ending(admitted.lease, Status.CANCELED, INTERRUPTED)
    resolution = await resolve_divergence(definition, admitted, recorder)
    if resolution is not None:
        return resolution.ending or _failed(definition, admitted, recorder.fault or error, resolution.refusal)
    postponed = _find_postponed(error)
    return _failed(definition, admitted, error) if postponed is None else _postponed(admitted, postponed)


async def _run_handler(
    definition: TaskDefinition, admitted: Admitted, threads: ThreadPoolExecutor, recorder: Recorder
) -> Ending:
    try:
        context = await _context_of(definition, admitted, recorder)
    except ContextInvalidError as error:
        return permanent_failure(admitted, str(error))
    if isinstance(context, Turn):
        try:
            context = await take_turn(recorder, context)
        except UsageError as error:
            return permanent_failure(admitted, str(error))
    if definition.timeout is None:
        value = await _call(definition, admitted, context, threads, recorder)
    else:
        try:
            async with asyncio.timeout(definition.timeout) as limit:
                value = await _call(definition, admitted, context, threads, recorder)
        except BaseException as error:
            # The limit's own CancelledError gets here if the handler wraps it, or has canceled itself before and went on.
            if not limit.expired() or not (isinstance(error, TimeoutError) or _is_cancellation(error)):
                raise
            return _failed(
                definition,
                admitted,
                TimeoutError(f"the attempt took longer than {definition.timeout} seconds"),
            )
    require_replayed(definition, recorder)
    if recorder.repeats and (unclaimed := recorder.unclaimed_paths):
        _log_unclaimed(admitted, unclaimed)
    try:
        result = dump_result(definition, value)
    except AgentexecError as error:
        # There is no retry: the same handler would most likely return the same kind of value, after the same work.
        return permanent_failure(admitted, str(error))
    result = await _stored_result(admitted, result, recorder)
    return Ending(admitted.lease, Status.COMPLETE, CONF.activity_message_complete, result=result)


async def _context_of(definition: TaskDefinition, admitted: Admitted, recorder: Recorder) -> Any:
    text = admitted.context
    if is_payload(text):
        text = await recorder.write_with_retry(unseal, text)
    return load_context(definition, None if text is None else unseal(text))


async def _stored_result(admitted: Admitted, result: str | None, recorder: Recorder) -> str | None:
    """Return a result as the ending has it: a large one is in the payload store before."""
    if result is None or not is_large(result):
        return result
    return await recorder.write_with_retry(RUNTIME.offload, admitted.lease.agent_id, "result", result)


def _log_unclaimed(admitted: Admitted, paths: Sequence[str]) -> None:
    """Log what was recorded but not asked for: a run or step whose name has changed was executed again."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    update(
        admitted.lease.agent_id,
        f"An earlier attempt recorded {', '.join(paths[:3])}{more}, which this attempt did not ask for. The names and "
        "inputs of runs and steps must not change between attempts.",
    )


def dump_result(definition: TaskDefinition, value: Any) -> str | None:
    """Return a result as JSON, None for None.

    Raises PayloadTooLargeError, or UsageError for a value that is not of the handler's return type, that JSON cannot
    express, or that would not come back as it is.
    """
    if value is None and definition.result.accepts_none:
        return None
    text = definition.result.dump(value, f"the result of task {definition.name}")
    check_payload_size(text, f"the result of task {definition.name}")
    return text


async def _call(
    definition: TaskDefinition,
    admitted: Admitted,
    context: Any,
    threads: ThreadPoolExecutor,
    recorder: Recorder,
) -> Any:
    if not recorder.is_lease_certain:
        await recorder.confirm_lease()
    call = functools.partial(definition.handler, agent_id=admitted.lease.agent_id, context=context)
    if definition.is_async:
        # Without a context manager, which would be two more calls of each task.
        pid = os.getpid()
        try:
            value = await call()
        except BaseException as error:
            end_in_child(pid, error)
            raise
        if os.getpid() != pid:
            end_in_child(pid)
        return value
    # The context variables go along, so that calls of the handler find the running task.
    run = contextvars.copy_context().run
    value = await asyncio.get_running_loop().run_in_executor(threads, run, call)
    return await value if inspect.isawaitable(value) else value


def _postponed(admitted: Admitted, later: Postponed) -> Ending:
    """Return an ending that requeues the task. Waiting is not a failure, so the attempt does not count."""
    return Ending(
        admitted.lease,
        Status.QUEUED,
        clean(str(later)),
        delay=later.seconds,
        counts_as_attempt=False,
        awaited_kinds=later.waiting_for,
    )


def _is_cancellation(error: BaseException) -> bool:
    # Some libraries wrap a CancelledError in a group, as they do with every error.
    if isinstance(error, BaseExceptionGroup):
        return error.split(asyncio.CancelledError)[1] is None
    return isinstance(error, asyncio.CancelledError)


def _find_postponed(error: BaseException) -> Postponed | None:
    """Return the wait that decides when the task runs again, None if the error is or contains another error.

    A TaskGroup wraps everything that its tasks raise. Of several waits, the longest for a known moment decides. Without
    one it is the shortest wait for an answer or event: these can come at any moment, and their time only says when they
    expire.
    """
    if isinstance(error, Postponed):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    waits, others = error.split(Postponed)
    if waits is None or others is not None:
        return None
    found: list[Postponed] = []
    pending: list[BaseException] = [waits]
    while pending:
        part = pending.pop()
        if isinstance(part, BaseExceptionGroup):
            pending.extend(part.exceptions)
        elif isinstance(part, Postponed):
            found.append(part)
    timed = [wait for wait in found if not wait.waiting_for]
    if timed:
        return max(timed, key=lambda wait: wait.seconds)
    return min(found, key=lambda wait: wait.seconds)


def _failed(
    definition: TaskDefinition, admitted: Admitted, error: BaseException, refusal: str = ""
) -> Ending:
    """Return the ending of an attempt that failed. `refusal`: further reason, for which there is no retry."""
    reason = redact(_describe(error) + (f" ({refusal})" if refusal else ""), CONF.secrets)
    failures = admitted.attempt - admitted.crashes.total
    delay = None if refusal else next_delay(definition, failures, error)
    # The traceback is cut after redaction: half of a secret would not be recognized.
    trace = redact(_format_traceback(error)[-MAX_ERROR * 2 :], CONF.secrets)
    text = clean(f"{reason}\n{trace[-MAX_ERROR:]}", MAX_ERROR * 2)
    if delay is None:
        message = CONF.activity_message_error.format(error=reason)
        return Ending(admitted.lease, Status.ERROR, clean(message), error=text)
    allowed = definition.retries + 1 + admitted.crashes.total
    message = failed_line(admitted.attempt, allowed, reason, delay)
    return Ending(admitted.lease, Status.QUEUED, clean(message), error=text, delay=delay)


def _describe(error: BaseException) -> str:
    """Return an error's class and message. Its own methods may fail."""
    try:
        text = str(error)
    except BaseException as failure:
        text = f"its message cannot be read, {type(failure).__name__}"
    if not text and isinstance(error, asyncio.CancelledError):
        text = STRAY_CANCELLATION
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _format_traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as failure:
        return f"The traceback cannot be formatted: {type(failure).__name__}."


def permanent_failure(admitted: Admitted, reason: str) -> Ending:
    """Return the ending of a task that is not retried."""
    reason = redact(reason, CONF.secrets)
    message = CONF.activity_message_error.format(error=reason)
    return Ending(admitted.lease, Status.ERROR, clean(message), error=clean(reason))

"""Tracing of the calls that enqueue tasks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from agentexec.runtime import RUNTIME
from agentexec.task import Task

P = ParamSpec("P")
R = TypeVar("R")


def traced(enqueue: Callable[P, R]) -> Callable[P, R]:
    """Make a function that enqueues, and takes the name of the task first, trace its calls if OpenTelemetry is on."""
    if inspect.iscoroutinefunction(enqueue):

        @functools.wraps(enqueue)
        async def traced_call(*args: Any, **options: Any) -> Any:
            tracing = RUNTIME.tracing
            if tracing is None or not args or not isinstance(args[0], str):
                return await enqueue(*args, **options)
            queue = _queue(args[0], options)
            with tracing.sending(args[0], queue) as span:
                accepted = await enqueue(*args, **options)
                tracing.note_sent(span, _agent_ids(accepted), queue)
                return accepted

        return cast(Callable[P, R], traced_call)

    @functools.wraps(enqueue)
    def traced_sync_call(*args: Any, **options: Any) -> Any:
        tracing = RUNTIME.tracing
        if tracing is None or not args or not isinstance(args[0], str):
            return enqueue(*args, **options)
        queue = _queue(args[0], options)
        with tracing.sending(args[0], queue) as span:
            accepted = enqueue(*args, **options)
            tracing.note_sent(span, _agent_ids(accepted), queue)
            return accepted

    return cast(Callable[P, R], traced_sync_call)


def _queue(task_name: str, options: dict[str, Any]) -> str:
    return str(options.get("queue") or RUNTIME.queue_of(task_name))


def _agent_ids(accepted: Any) -> list[Any]:
    return [accepted.agent_id] if isinstance(accepted, Task) else [task.agent_id for task in accepted]

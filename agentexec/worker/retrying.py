"""Retries of a task: whether an error starts another attempt, and when, by the options of its handler."""

from __future__ import annotations

import logging
import random

from agentexec.arguments.checks import check_seconds, first_line
from agentexec.errors import BudgetExceededError
from agentexec.policy import retry_delay
from agentexec.task import TaskDefinition

log = logging.getLogger("agentexec.worker")


def next_delay(definition: TaskDefinition, failures: int, error: BaseException) -> float | None:
    """Return the seconds until the next attempt after `failures` failed ones (1 or more), None to give up."""
    by_default = retry_delay(failures, definition.retries, random.random())  # noqa: S311 - spreads load, no secret
    if by_default is None or not _is_retried(definition, error):
        return None
    backoff = definition.backoff
    if backoff is None:
        return by_default
    try:
        wait = backoff(failures) if callable(backoff) else backoff
        return check_seconds("backoff=", wait, minimum=0)
    except BaseException as failure:
        # The task must not be lost to a mistake in what is asked about it.
        log.error(
            "backoff= of task %s failed (%s: %s); the default pause is used.",
            definition.name,
            type(failure).__name__,
            first_line(failure),
        )
        return by_default


def _is_budget_exceeded(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(BudgetExceededError) is not None
    return isinstance(error, BudgetExceededError)


def _is_retried(definition: TaskDefinition, error: BaseException) -> bool:
    wanted = definition.retry_on
    if wanted is None:
        # The next attempt would come to the same call.
        return not _is_budget_exceeded(error)
    if isinstance(wanted, tuple):
        if isinstance(error, BaseExceptionGroup):
            # A TaskGroup wraps what its tasks raise. One error that must not be retried is enough.
            return error.split(wanted)[1] is None
        return isinstance(error, wanted)
    try:
        return bool(wanted(error))
    except BaseException as failure:
        log.error(
            "retry_on= of task %s failed (%s: %s); the task is retried.",
            definition.name,
            type(failure).__name__,
            first_line(failure),
        )
        return True

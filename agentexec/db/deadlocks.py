"""Retries of transactions that lost a deadlock."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from agentexec.errors import UnavailableError

P = ParamSpec("P")
R = TypeVar("R")

DEADLOCK_TRIES = 5
"""Times that a transaction runs, if it loses to a deadlock each time."""

DEADLOCK_PAUSE = 0.02
"""Longest pause in seconds before a transaction that lost runs again: the winner must get its locks first."""

DEADLOCK = ("40P01", 1213)
"""PostgreSQL's and MySQL's codes for a transaction that was ended to resolve a deadlock."""


def retry_on_deadlock(call: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it runs again after losing a deadlock.

    The function is one transaction, or several that may be repeated. A call with `transaction=` is a part of the
    caller's: that is gone as a whole, and its owner runs it again.
    """

    @functools.wraps(call)
    def call_with_retries(*args: P.args, **options: P.kwargs) -> R:
        tries = DEADLOCK_TRIES if options.get("transaction") is None else 1
        for _ in range(tries - 1):
            try:
                return call(*args, **options)
            except UnavailableError as error:
                if not _is_deadlock(error.__cause__):
                    raise
            time.sleep(random.uniform(DEADLOCK_PAUSE / 2, DEADLOCK_PAUSE))  # noqa: S311 - spreads load, no secret
        return call(*args, **options)

    return call_with_retries


def _is_deadlock(error: BaseException | None) -> bool:
    original: Any = getattr(error, "orig", None)
    # Some MySQL drivers give an error number, some also SQLSTATE 40001, which other failures share.
    codes = (getattr(original, "sqlstate", None), *getattr(original, "args", ())[:1])
    return any(code in DEADLOCK for code in codes)

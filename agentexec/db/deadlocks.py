"""Transactions that lost to a deadlock run again."""

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

DEADLOCK_PAUSE = 0.02
"""Seconds, at most, before a transaction that lost runs again: the one that it let pass must get its locks first."""

DEADLOCK = ("40P01", 1213)
"""What PostgreSQL and MySQL call a transaction that they ended to let another pass."""


def retry_on_deadlock(call: Callable[P, R]) -> Callable[P, R]:
    """Call a function that is one transaction, or several that may be repeated, again when it lost to a deadlock."""

    @functools.wraps(call)
    def again(*args: P.args, **options: P.kwargs) -> R:
        for _ in range(DEADLOCK_TRIES - 1):
            try:
                return call(*args, **options)
            except UnavailableError as error:
                if not _is_deadlock(error.__cause__):
                    raise
            time.sleep(random.uniform(DEADLOCK_PAUSE / 2, DEADLOCK_PAUSE))  # noqa: S311 - spreads load, no secret
        return call(*args, **options)

    return again


def _is_deadlock(error: BaseException | None) -> bool:
    original: Any = getattr(error, "orig", None)
    # Some drivers of MySQL give an error number, some an SQLSTATE too: 40001, which other failures share.
    codes = (getattr(original, "sqlstate", None), *getattr(original, "args", ())[:1])
    return any(code in DEADLOCK for code in codes)

"""Failures in a row: how long to wait before the next try, and what to log."""

from __future__ import annotations

import logging
import random


def backoff(failures: int, *, initial: float = 0.1, maximum: float = 5.0) -> float:
    """Return the seconds to wait after `failures` (1 or more) failures in a row.

    The wait doubles from `initial` up to `maximum`.
    """
    return min(maximum, initial * 2.0 ** min(failures - 1, 20))


class Outage:
    """Failures in a row of one loop: logs the first one and the recovery, and spaces the tries.

    One thread owns an outage; the loop calls `failed` after each failure and `recovered` after each success.

    Args:
        log: Logger for the first failure and the recovery.
        recovered: Message logged when an outage ends; None logs nothing.
        level: Level of the first failure's message.
        maximum: Longest wait between two tries, in seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        recovered: str | None = None,
        level: int = logging.WARNING,
        maximum: float = 5.0,
    ) -> None:
        self._log = log
        self._recovered = recovered
        self._level = level
        self._maximum = maximum
        self.failures = 0
        """Failures since the last success."""

    def failed(self, message: str, *args: object) -> float:
        """Note a failure, log it if it is the first, and return the seconds to wait before the next try.

        Up to a fifth of the wait is taken off at random, so that processes that failed together do not return together.
        """
        self.failures += 1
        if self.failures == 1:
            self._log.log(self._level, message, *args)
        return self._wait()

    def failed_unexpectedly(self, message: str, *args: object) -> float:
        """Note an error that is not an outage, log it with its traceback, and return the seconds to wait.

        To be called in an except block. Such errors are logged every time: each may be another one.
        """
        self.failures += 1
        self._log.exception(message, *args)
        return self._wait()

    def recovered(self) -> None:
        """Note a success, and log the recovery if there were failures before it."""
        if self.failures and self._recovered is not None:
            self._log.info(self._recovered)
        self.failures = 0

    def _wait(self) -> float:
        return backoff(self.failures, maximum=self._maximum) * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load, no secret

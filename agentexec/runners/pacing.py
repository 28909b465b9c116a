"""Pacing of model calls: all workers together keep to AGENTEXEC_RATE_LIMITS, and failed calls are retried."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agentexec.config import CONF
from agentexec.errors import RetryLater, UnavailableError
from agentexec.journal.recorder import confirm_lease
from agentexec.llm.rate_limits import Demand, RateLimits, parse_rate_limits
from agentexec.outage import Outage, backoff
from agentexec.runtime import RUNTIME

log = logging.getLogger("agentexec.pacing")

QUICK_RETRIES = 2
"""Retries after a temporary failure for which the server gives no time to wait."""

FIRST_WAIT_SECONDS = 0.5
JITTER = 0.2
"""Largest share of its wait by which a task returns later, so that tasks given back together return apart."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Amount that a call has taken of its model's limits."""

    model: str
    tokens: float


class Pacer:
    """Delays calls until the limits of their model allow them. Each process has one."""

    def __init__(self, limits: RateLimits, max_wait: float) -> None:
        self._limits = limits
        self._max_wait = max_wait
        self._outage = Outage(log, recovered="Model calls are paced again.")

    def close(self) -> None:
        """Do nothing: a pacer holds no resources."""

    def limits_tokens(self, model: str) -> bool:
        """Return True if a limit counts the tokens of this model's calls."""
        return any(demand.name.endswith(":tpm") for demand in self._limits.demands(model, 1))

    async def before_call(self, model: str, estimated_tokens: float) -> Reservation:
        """Wait until a call may be made, and make sure that the running task is still this worker's.

        Raises RetryLater if that takes longer than AGENTEXEC_RATE_LIMIT_WAIT seconds. While the state backend is
        unavailable, calls are not delayed: then only the provider enforces its limits. Raises LeaseLostError if another
        worker has the task.
        """
        reservation = await self._reserve(model, estimated_tokens)
        # After the wait: this is the last moment before the call leaves.
        await confirm_lease()
        return reservation

    async def _reserve(self, model: str, estimated_tokens: float) -> Reservation:
        reservation = Reservation(model, estimated_tokens)
        demands = self._limits.demands(model, estimated_tokens)
        if not demands:
            return reservation
        try:
            wait = await RUNTIME.run_in_thread(RUNTIME.backend.reserve, demands, self._max_wait)
        except UnavailableError as error:
            self._outage.failed("%s Model calls are not paced until it is back.", error)
            return reservation
        self._outage.recovered()
        if wait > self._max_wait:
            raise retry_later_error(wait, model, random.random())  # noqa: S311 - spreads load, no secret
        try:
            await asyncio.sleep(wait)
        except BaseException:
            # A canceled call leaves its share to others.
            self._settle([demand._replace(amount=-demand.amount) for demand in demands])
            raise
        return reservation

    def after_call(self, reservation: Reservation, used_tokens: float) -> None:
        """Correct the estimate by the tokens that the call has used, without waiting for the state backend."""
        difference = used_tokens - reservation.tokens
        self._settle(self._limits.demands(reservation.model, difference, requests=0))

    def _settle(self, demands: Sequence[Demand]) -> None:
        if not demands:
            return

        def settle() -> None:
            try:
                RUNTIME.backend.settle(demands)
            except UnavailableError as error:
                log.debug("%s The estimate of a model call stays uncorrected.", error)

        RUNTIME.submit(settle)


def pacer() -> Pacer:
    """Return this process's pacer."""
    return RUNTIME.get_shared(Pacer, lambda: Pacer(parse_rate_limits(CONF.rate_limits), CONF.rate_limit_wait))


@dataclass(frozen=True, slots=True)
class RetryableFailure:
    """Failure of a call that may succeed later.

    `rate_limited` is True if the server answered 429. `retry_after` is the wait in seconds that it asked for, if any.
    """

    rate_limited: bool
    retry_after: float | None


def call_retry_delay(
    failure: RetryableFailure, *, failures: int, waited: float, max_wait: float, caller_retries: bool
) -> float | None:
    """Decide how many seconds to wait before a failed call is retried; None lets its error through.

    `failures` counts those of this call (1 or more), `waited` the seconds already spent waiting for it.
    `caller_retries` is True if the caller (the SDK's own retry settings) retries. A result above `max_wait` means that
    the task goes back to the queue for that long.
    """
    retry_after = failure.retry_after
    if failure.rate_limited and retry_after is not None and waited + retry_after > max_wait:
        return max(retry_after, max_wait + 1)
    if caller_retries:
        return None
    if failure.rate_limited and retry_after is not None:
        return max(retry_after, 0.1)
    if failures > QUICK_RETRIES:
        return None
    return min(backoff(failures, initial=FIRST_WAIT_SECONDS), max_wait)


def retry_later_error(seconds: float, model: str, jitter: float) -> RetryLater:
    """Return the exception that gives a task back to the queue while its model is limited; `jitter` is 0 to 1."""
    return RetryLater(seconds * (1 + JITTER * jitter), f"{model} is rate limited")


def bound_retry_after(seconds: float | None, model: str) -> float | None:
    """Return the wait that a server asks for, or AGENTEXEC_MAX_RETRY_AFTER if that is shorter."""
    if seconds is None or seconds <= CONF.max_retry_after:
        return seconds
    log.warning(
        "The server of %s asks to wait %g s. The task waits %g s: see AGENTEXEC_MAX_RETRY_AFTER.",
        model,
        seconds,
        CONF.max_retry_after,
    )
    return CONF.max_retry_after


def parse_retry_after(milliseconds: str | None, seconds_or_date: str | None, now: datetime) -> float | None:
    """Return the seconds to wait by the headers `retry-after-ms` and `retry-after`; None if they give none."""
    for text, per_second in ((milliseconds, 1000), (seconds_or_date, 1)):
        try:
            seconds = math.nan if text is None else float(text) / per_second
        except ValueError:
            continue
        if not math.isnan(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(seconds_or_date or "")
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())

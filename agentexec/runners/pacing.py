"""Pacing of model calls: all workers together keep to AGENTEXEC_RATE_LIMITS, and what to do when a call is refused."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agentexec.config import CONF
from agentexec.errors import RetryLater, UnavailableError
from agentexec.llm.rate_limits import Demand, RateLimits, parse_rate_limits
from agentexec.outage import backoff
from agentexec.runtime import RUNTIME

log = logging.getLogger("agentexec.pacing")

QUICK_RETRIES = 2
"""Further calls after a fault that is likely to pass, where the server says nothing of when."""

FIRST_WAIT = 0.5
SPREAD = 0.2
"""Tasks that are given back return up to so much later than they might, so that they do not all return together."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call has taken of its model's limits."""

    model: str
    tokens: float


class Pacer:
    """Holds calls back until the limits of their model allow them. One for each process."""

    def __init__(self, limits: RateLimits, max_wait: float) -> None:
        self._limits = limits
        self._max_wait = max_wait
        self._away = False

    def close(self) -> None:
        """Nothing is open."""

    def limits_tokens(self, model: str) -> bool:
        """True if it matters how many tokens a call takes."""
        return any(demand.name.endswith(":tpm") for demand in self._limits.demands(model, 1))

    async def before_call(self, model: str, estimated_tokens: float) -> Reservation:
        """Wait until a call may be made.

        Raises RetryLater if that takes longer than AGENTEXEC_RATE_LIMIT_WAIT seconds. While the state backend cannot be
        reached calls are not held back: the limits are the provider's to enforce.
        """
        reservation = Reservation(model, estimated_tokens)
        demands = self._limits.demands(model, estimated_tokens)
        if not demands:
            return reservation
        try:
            wait = await RUNTIME.run_in_thread(RUNTIME.backend.reserve, demands, self._max_wait)
        except UnavailableError as error:
            if not self._away:
                log.warning("%s Model calls are not paced until it is back.", error)
            self._away = True
            return reservation
        if self._away:
            log.info("Model calls are paced again.")
            self._away = False
        if wait > self._max_wait:
            raise retry_later_error(wait, model, random.random())  # noqa: S311 - spreads load, no secret
        try:
            await asyncio.sleep(wait)
        except BaseException:
            # Canceled: what was taken is for others.
            self._settle([demand._replace(amount=-demand.amount) for demand in demands])
            raise
        return reservation

    def after_call(self, reservation: Reservation, used_tokens: float) -> None:
        """Correct the estimate by what the call has really used; returns at once."""
        difference = used_tokens - reservation.tokens
        self._settle(self._limits.demands(reservation.model, difference, requests=0))

    def _settle(self, demands: Sequence[Demand]) -> None:
        if not demands:
            return

        def settle() -> None:
            try:
                RUNTIME.backend.settle(demands)
            except UnavailableError as error:
                log.debug("%s An estimate is not corrected.", error)

        RUNTIME.submit(settle)


def pacer() -> Pacer:
    """This process's pacer."""
    return RUNTIME.get_shared(Pacer, lambda: Pacer(parse_rate_limits(CONF.rate_limits), CONF.rate_limit_wait))


@dataclass(frozen=True, slots=True)
class RetryableFailure:
    """A call that failed, and may succeed later.

    `rate_limited`: the server said 429. `retry_after`: the seconds that it asked for, None if it said nothing.
    """

    rate_limited: bool
    retry_after: float | None


def call_retry_delay(
    failure: RetryableFailure, *, failures: int, waited: float, max_wait: float, caller_retries: bool
) -> float | None:
    """Seconds to wait in place before a refused call is made again; None to let its error through.

    `failures`: of this call so far (1 or more); `waited`: seconds spent waiting on it; `caller_retries`: somebody above
    (the SDK's own retry settings) sees to retries. More than `max_wait` means: give the task back for that long.
    """
    after = failure.retry_after
    if failure.rate_limited and after is not None and waited + after > max_wait:
        return max(after, max_wait + 1)
    if caller_retries:
        return None
    if failure.rate_limited and after is not None:
        return max(after, 0.1)
    if failures > QUICK_RETRIES:
        return None
    return min(backoff(failures, initial=FIRST_WAIT), max_wait)


def retry_later_error(seconds: float, model: str, jitter: float) -> RetryLater:
    """The way back to the queue for a task whose model is limited for so long; `jitter` is 0 to 1."""
    return RetryLater(seconds * (1 + SPREAD * jitter), f"{model} is rate limited")


def parse_retry_after(milliseconds: str | None, seconds_or_date: str | None, now: datetime) -> float | None:
    """Seconds from the headers `retry-after-ms` and `retry-after`, or None."""
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
    except ValueError:
        pass
    if seconds_or_date is None:
        return None
    try:
        return max(0.0, float(seconds_or_date))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(seconds_or_date)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())

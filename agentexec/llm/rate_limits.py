"""Rate limits of models, parsed from AGENTEXEC_RATE_LIMITS, and the arithmetic of a token bucket. No clock, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MICROS_PER_SECOND = 1_000_000
MINUTE = 60.0
BURST = 0.1
"""Part of a minute's limit that may be spent in one burst. A minute refills the rest, so no minute, wherever it begins,
exceeds the limit."""

MAX_DEBT_MICROS = 7 * 86_400 * MICROS_PER_SECOND
"""Microseconds within which any bucket is full again. The Lua script of the Redis backend has the same bound."""

ANY_MODEL = "*"
MAX_MODEL_NAME = 120
"""Characters of a model's name that are part of its bucket's name."""

MAX_DIGITS = 12
"""Digits of the largest amount; no provider has a larger limit."""

_AMOUNT = re.compile(r"(\d+)(rpm|tpm)", re.IGNORECASE)


class Demand(NamedTuple):
    """Amount wanted from a bucket, which holds `capacity` and is refilled at `per_second`.

    `name` is the bucket's name. The unit is the bucket's own: requests or tokens. A negative amount gives back.
    """

    name: str
    amount: float
    capacity: float
    per_second: float

    @property
    def refill_micros(self) -> int:
        """Microseconds in which the amount is refilled."""
        return round(self.amount / self.per_second * MICROS_PER_SECOND)

    @property
    def full_refill_micros(self) -> int:
        """Microseconds in which the empty bucket is filled."""
        return round(self.capacity / self.per_second * MICROS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Limits of one model per minute. None means no limit."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits by model name. `*` stands for each model without an entry, with its own bucket."""

    models: Mapping[str, ModelLimits] = field(default_factory=dict)

    def demands(self, model: str, tokens: float, *, requests: float = 1) -> list[Demand]:
        """Return the demands of a call of a model; an empty list for a model without limits."""
        limits = self.models.get(model) or self.models.get(ANY_MODEL)
        if limits is None:
            return []
        wanted = (("rpm", limits.requests, requests), ("tpm", limits.tokens, tokens))
        return [
            _demand(f"{model[:MAX_MODEL_NAME]}:{unit}", limit, amount)
            for unit, limit, amount in wanted
            if limit is not None and amount
        ]


def parse_rate_limits(text: str) -> RateLimits:
    """Parse limits like "gpt-4o=500rpm,200000tpm; *=60rpm". Raises ValueError that says what to write instead.

    Semicolons or white space separate entries. `rpm` is requests per minute, `tpm` tokens per minute.
    """
    models: dict[str, ModelLimits] = {}
    for entry in re.sub(r"\s*([,=])\s*", r"\1", text).replace(";", " ").split():
        # From the right: an amount has no equals sign, but a model's name may.
        model, equals, amounts = entry.rpartition("=")
        if not equals or not model:
            raise ValueError(f"{entry!r} has no limit; write it like gpt-4o=500rpm,200000tpm")
        if model in models:
            raise ValueError(f"{model} has two entries; write one, like {model}=500rpm,200000tpm")
        models[model] = _limits(model, amounts)
    return RateLimits(models)


def _limits(model: str, text: str) -> ModelLimits:
    found: dict[str, int] = {}
    for amount in text.split(","):
        match = _AMOUNT.fullmatch(amount)
        if match is None or len(match[1]) > MAX_DIGITS or int(match[1]) == 0:
            raise ValueError(
                f"{amount!r} of {model} is not a limit; write a whole number above 0 with rpm (requests per minute) "
                "or tpm (tokens per minute), like 500rpm"
            )
        unit = match[2].lower()
        if unit in found:
            raise ValueError(f"{model} has two limits in {unit}; write one")
        found[unit] = int(match[1])
    return ModelLimits(found.get("rpm"), found.get("tpm"))


def _demand(name: str, limit: int, amount: float) -> Demand:
    capacity = max(1.0, limit * BURST)
    refilled = limit - capacity if limit > 1 else 1.0
    return Demand(name, amount, capacity, refilled / MINUTE)


def spend(full_at: int | None, now: int, demand: Demand) -> tuple[int, int]:
    """Return the wait before an amount may be taken from a bucket, and the bucket's new state if it is taken.

    A bucket's state is the time at which it will be full again (`full_at`; None: it is full). All times are
    microseconds. An amount above the capacity may be taken when the bucket is full.

    No bucket is further from full than MAX_DEBT_MICROS. A state beyond that was not written by agentexec, and counts as full.
    """
    if type(full_at) is not int or full_at > now + MAX_DEBT_MICROS:
        full_at = now
    spent_until = min(max(now, full_at) + demand.refill_micros, now + MAX_DEBT_MICROS)
    return max(0, spent_until - now - max(demand.full_refill_micros, demand.refill_micros)), spent_until

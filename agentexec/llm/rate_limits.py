"""Rate limits: what AGENTEXEC_RATE_LIMITS says, and the arithmetic of a token bucket. No clock, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MICROS_PER_SECOND = 1_000_000
MINUTE = 60.0
BURST = 0.1
"""The part of a minute's limit that may be spent at once. What is refilled in a minute is the rest of it, so that no
minute, wherever it begins, sees more than the limit."""

ANY_MODEL = "*"
MAX_MODEL_NAME = 120
"""Characters of a model's name that tell its bucket from others."""

MAX_DIGITS = 12
"""Of an amount: what is larger is no limit of anybody's."""

_AMOUNT = re.compile(r"(\d+)(rpm|tpm)", re.IGNORECASE)


class Demand(NamedTuple):
    """An amount wanted of a bucket, which holds `capacity` and is refilled at `per_second`.

    `name` is the bucket's. The units are the bucket's own: requests, or tokens. A negative amount gives back.
    """

    name: str
    amount: float
    capacity: float
    per_second: float

    @property
    def refill_micros(self) -> int:
        """Microseconds of refilling that the amount takes."""
        return round(self.amount / self.per_second * MICROS_PER_SECOND)

    @property
    def full_refill_micros(self) -> int:
        """Microseconds of refilling from empty to full."""
        return round(self.capacity / self.per_second * MICROS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Limits of one model for each minute; None: no limit."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits by the names of models; `*` stands for each model that has no entry, one bucket for each."""

    models: Mapping[str, ModelLimits] = field(default_factory=dict)

    def demands(self, model: str, tokens: float, *, requests: float = 1) -> list[Demand]:
        """What a call of a model takes; nothing for a model without limits."""
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
    """Read "gpt-4o=500rpm,200000tpm; *=60rpm"; raises ValueError with what to write instead.

    Entries are parted by semicolons or white space. `rpm` are requests, `tpm` tokens per minute.
    """
    models: dict[str, ModelLimits] = {}
    for entry in re.sub(r"\s*([,=])\s*", r"\1", text).replace(";", " ").split():
        # From the right: no amount has an equals sign, but a model's name may.
        model, equals, amounts = entry.rpartition("=")
        if not equals or not model:
            raise ValueError(f"{entry!r} names no limit; write it like gpt-4o=500rpm,200000tpm")
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
                f"{amount!r} of {model} is no limit; write a whole number above 0 with rpm (requests per minute) "
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
    """A bucket is one moment: when it will be full again (`full_at`, None: it is full). All in microseconds.

    Returns how long to wait before the amount may be taken, and the moment to keep if it is. More than a whole
    bucket is given when it is full.
    """
    spent_until = max(now, full_at or 0) + demand.refill_micros
    return max(0, spent_until - now - max(demand.full_refill_micros, demand.refill_micros)), spent_until

"""What model calls cost, from usage and a table of prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

MILLION = 1_000_000


class ModelPrice(TypedDict):
    """Dollars per million tokens; `cached_input` is `input` where a provider makes no difference."""

    input: float
    cached_input: float
    output: float


def cost(usage: Mapping[str, Mapping[str, int]], prices: Mapping[str, ModelPrice]) -> float | None:
    """Dollars for usage by model; None if a model's price is not known, or nothing was used."""
    if not usage or not all(model in prices for model in usage):
        return None
    total = 0.0
    for model, used in usage.items():
        price, cached = prices[model], used.get("cached_tokens", 0)
        total += (used.get("input_tokens", 0) - cached) * price["input"]
        total += cached * price["cached_input"]
        total += used.get("output_tokens", 0) * price["output"]
    return total / MILLION

"""What model calls cost, from usage and a table of prices."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

MILLION = 1_000_000


class ModelPrice(BaseModel):
    """Dollars per million tokens; cached input costs as much as other input where nothing else is said."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    output: float = Field(ge=0)


def cost(usage: Mapping[str, Mapping[str, int]], prices: Mapping[str, ModelPrice]) -> float | None:
    """Dollars for usage by model; None if a model's price is not known, or nothing was used."""
    if not usage or not all(model in prices for model in usage):
        return None
    total = 0.0
    for model, used in usage.items():
        price, cached = prices[model], used.get("cached_tokens", 0)
        total += (used.get("input_tokens", 0) - cached) * price.input
        total += cached * (price.input if price.cached_input is None else price.cached_input)
        total += used.get("output_tokens", 0) * price.output
    return total / MILLION

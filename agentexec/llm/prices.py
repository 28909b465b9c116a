"""Cost of model calls, from their usage and a table of prices."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

MILLION = 1_000_000


class ModelPrice(BaseModel):
    """Dollars per million tokens. Without a price of its own, cached input costs as much as other input."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    output: float = Field(ge=0)


def price_of(model: str, prices: Mapping[str, ModelPrice], *, use_list_prices: bool) -> ModelPrice | None:
    """Return a model's own price, else with `use_list_prices` the one in the list shipped with agentexec, else None.

    Models that the list lacks are looked up in `genai-prices`, if it is installed.
    """
    if model in prices or not use_list_prices:
        return prices.get(model)
    from agentexec.llm.list_prices import PRICES  # noqa: PLC0415 - only a look at costs loads the list

    found = PRICES.get(model)
    if found is None:
        from agentexec.llm.listed_elsewhere import find_price  # noqa: PLC0415 - only for these models

        found = find_price(model)
    if found is None:
        return None
    fresh, cached, output = found
    return ModelPrice(input=fresh, cached_input=cached, output=output)


def compute_cost(
    usage: Mapping[str, Mapping[str, int]], prices: Mapping[str, ModelPrice], *, use_list_prices: bool
) -> float | None:
    """Return the dollars for usage by model, None if a model's price is not known or nothing was used."""
    if not usage:
        return None
    total = 0.0
    for model, used in usage.items():
        price, cached = price_of(model, prices, use_list_prices=use_list_prices), used.get("cached_tokens", 0)
        if price is None:
            return None
        total += (used.get("input_tokens", 0) - cached) * price.input
        total += cached * (price.input if price.cached_input is None else price.cached_input)
        total += used.get("output_tokens", 0) * price.output
    return total / MILLION

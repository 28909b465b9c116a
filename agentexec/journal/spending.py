"""Spending, as metrics count it: requests, tokens and cost of recorded model responses."""

from __future__ import annotations

from agentexec.config import CONF
from agentexec.journal.facts import Usage
from agentexec.llm.prices import compute_cost
from agentexec.telemetry.meter import Meter
from agentexec.telemetry.names import COST, REQUESTS, TOKENS


def count_usage(meter: Meter, usage: Usage) -> None:
    """Count what a model response has used. A replay of the response does not come here."""
    counts, model = usage.counts, usage.model
    meter.add(REQUESTS, model, amount=usage.requests)
    meter.add(TOKENS, model, "input", amount=max(0, usage.input_tokens - usage.cached_tokens))
    meter.add(TOKENS, model, "cached_input", amount=usage.cached_tokens)
    meter.add(TOKENS, model, "output", amount=usage.output_tokens)
    cost = compute_cost({model: counts}, CONF.model_prices, use_list_prices=CONF.list_prices)
    if cost is not None:
        meter.add(COST, model, amount=max(0.0, cost))

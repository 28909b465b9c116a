"""Tokens and cost are counted by model, cached input apart."""

from __future__ import annotations

import pytest

from agentexec.config import CONF
from agentexec.journal.facts import Usage
from agentexec.journal.spending import count_usage
from agentexec.llm.prices import ModelPrice
from agentexec.telemetry.meter import Meter
from agentexec.telemetry.names import COST, REQUESTS, TOKENS


def test_usage_becomes_tokens_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONF, "model_prices", {"m": ModelPrice(input=2, cached_input=1, output=10)})
    meter = Meter()
    count_usage(meter, Usage("m", 2, 1_000_000, 400_000, 100_000))
    count_usage(meter, Usage("nobody's", 1, 10, 0, 5))
    assert meter.values() == {
        (REQUESTS.name, ("m",)): [2],
        (TOKENS.name, ("m", "input")): [600_000],
        (TOKENS.name, ("m", "cached_input")): [400_000],
        (TOKENS.name, ("m", "output")): [100_000],
        (COST.name, ("m",)): [pytest.approx(1.2 + 0.4 + 1.0)],
        (REQUESTS.name, ("nobody's",)): [1],
        (TOKENS.name, ("nobody's", "input")): [10],
        (TOKENS.name, ("nobody's", "cached_input")): [0],
        (TOKENS.name, ("nobody's", "output")): [5],
    }

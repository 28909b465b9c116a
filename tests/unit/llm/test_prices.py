"""Cost of usage: own prices, the shipped list, and no cost where a price is unknown."""

from __future__ import annotations

import re
import sys
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentexec.llm.list_prices import BASE_MODEL_PRICES, CHECKED_ON, PRICES, SNAPSHOTS
from agentexec.llm.listed_elsewhere import find_price
from agentexec.llm.prices import ModelPrice, compute_cost

USED = {"requests": 1, "input_tokens": 3_000_000, "cached_tokens": 1_000_000, "output_tokens": 500_000}
OWN = {"gpt-4o": ModelPrice(input=1, output=2)}
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "durable-runs.md"


def test_a_listed_model_costs_what_the_list_says():
    assert compute_cost({"gpt-4o": USED}, {}, use_list_prices=True) == pytest.approx(2 * 2.5 + 1.25 + 5)


def test_own_prices_win_and_other_models_keep_their_listed_price():
    assert compute_cost({"gpt-4o": USED}, OWN, use_list_prices=True) == pytest.approx(3 * 1 + 1)
    both = {"gpt-4o": USED, "gpt-4o-mini": USED}
    assert compute_cost(both, OWN, use_list_prices=True) == pytest.approx(3 * 1 + 1 + 2 * 0.15 + 0.075 + 0.3)


def test_without_the_list_only_own_prices_are_used():
    assert compute_cost({"gpt-4o": USED}, OWN, use_list_prices=False) == pytest.approx(4)
    assert compute_cost({"gpt-4o-mini": USED}, OWN, use_list_prices=False) is None


def test_one_unknown_price_leaves_the_whole_cost_unknown():
    assert compute_cost({"gpt-4o": USED, "ours": USED}, {}, use_list_prices=True) is None
    assert compute_cost({}, {}, use_list_prices=True) is None


def test_a_dated_name_costs_what_its_family_does_and_another_date_is_unknown():
    assert PRICES["gpt-4o-2024-08-06"] == PRICES["gpt-4o"]
    assert compute_cost({"gpt-4o-2024-05-13": USED}, {}, use_list_prices=True) is None
    assert set(SNAPSHOTS) <= set(BASE_MODEL_PRICES)
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", day) for days in SNAPSHOTS.values() for day in days)


@pytest.mark.parametrize("model", BASE_MODEL_PRICES)
def test_prices_are_in_plausible_proportions(model):
    fresh, cached, output = PRICES[model]
    assert fresh / 20 <= cached <= fresh / 2
    assert 4 * fresh <= output <= 8 * fresh


def test_the_guide_says_when_the_list_was_checked_and_names_its_models():
    text = GUIDE.read_text()
    assert f"as of {CHECKED_ON.day} {CHECKED_ON:%B %Y}" in text
    assert date.today() + timedelta(days=1) >= CHECKED_ON
    [listed] = re.findall(
        r"includes OpenAI's list prices of these models, as of [^:]*:([^.]*(?:\.\d[^.]*)*)\.", text
    )
    words = set(re.findall(r"[a-z0-9.]+", listed.replace("-", " ")))
    assert {part for model in BASE_MODEL_PRICES for part in model.split("-")} <= words


class FakePrices:
    """The part of genai-prices that is used, as its release 0.2.3 answers; a real one would slow every test's import."""

    class Usage:
        def __init__(self, input_tokens: int = 0, cache_read_tokens: int = 0, output_tokens: int = 0) -> None:
            fresh = input_tokens - cache_read_tokens
            self.total = Decimal(3 * fresh + 15 * output_tokens) + Decimal("0.3") * cache_read_tokens

    @staticmethod
    def calc_price(usage: Usage, model_ref: str, *, provider_id: str | None = None) -> SimpleNamespace:
        if model_ref == "broken":
            raise ValueError(model_ref)
        if model_ref != "claude-sonnet-4-5" or provider_id not in (None, "anthropic"):
            raise LookupError(model_ref)
        return SimpleNamespace(total_price=usage.total / 1_000_000)


def test_models_that_the_list_lacks_are_looked_up_in_genai_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    find_price.cache_clear()
    monkeypatch.setitem(sys.modules, "genai_prices", FakePrices)
    used = {"claude-sonnet-4-5": USED}
    cost = compute_cost(used, {}, use_list_prices=True)
    assert cost == pytest.approx(2 * 3 + 0.3 + 15 / 2)
    assert compute_cost({"anthropic/claude-sonnet-4-5": USED}, {}, use_list_prices=True) == cost
    assert compute_cost({"litellm/anthropic/claude-sonnet-4-5": USED}, {}, use_list_prices=True) == cost
    assert compute_cost(used, {}, use_list_prices=False) is None
    for unknown in ("nobody/claude-sonnet-4-5", "broken", ""):
        assert compute_cost({unknown: USED}, {}, use_list_prices=True) is None
    find_price.cache_clear()


def test_without_genai_prices_only_the_list_has_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    find_price.cache_clear()
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert compute_cost({"claude-sonnet-4-5": USED}, {}, use_list_prices=True) is None
    find_price.cache_clear()

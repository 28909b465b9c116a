"""Rate limits: the setting, and the arithmetic of buckets."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

import agentexec as ax
from agentexec.config import Settings
from agentexec.llm.rate_limits import (
    MAX_DEBT_MICROS,
    MICROS_PER_SECOND,
    Demand,
    ModelLimits,
    RateLimits,
    parse_rate_limits,
    spend,
)


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("", {}),
        ("gpt-4o=500rpm,200000tpm", {"gpt-4o": ModelLimits(500, 200_000)}),
        ("a=5rpm;b=6TPM", {"a": ModelLimits(5), "b": ModelLimits(None, 6)}),
        (" a = 5rpm , 7tpm \n *=1rpm ;", {"a": ModelLimits(5, 7), "*": ModelLimits(1)}),
        ("ollama/llama3:8b=10rpm", {"ollama/llama3:8b": ModelLimits(10)}),
    ],
)
def test_limits_are_parsed(text: str, models: dict[str, ModelLimits]) -> None:
    assert parse_rate_limits(text).models == models


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gpt-4o", "'gpt-4o' has no limit"),
        ("=5rpm", "has no limit"),
        ("a=5", "'5' of a is not a limit"),
        ("a=0rpm", "'0rpm' of a is not a limit"),
        ("a=-1rpm", "is not a limit"),
        ("a=5rpm,6rpm", "a has two limits in rpm"),
        ("a=5rpm b=1tpm a=6rpm", "a has two entries"),
    ],
)
def test_a_bad_limit_is_reported_with_its_variable(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_rate_limits(text)
    settings = Settings()
    with pytest.raises(ax.SettingsError, match=f"AGENTEXEC_RATE_LIMITS cannot be used: .*{problem}"):
        settings.rate_limits = text


def test_a_model_has_its_own_limits_or_the_deproblem_ones() -> None:
    limits = parse_rate_limits("gpt-4o=600rpm,1000tpm *=60rpm")
    assert [(demand.name, demand.amount) for demand in limits.demands("gpt-4o", 30)] == [
        ("gpt-4o:rpm", 1),
        ("gpt-4o:tpm", 30),
    ]
    assert limits.demands("o3", 30) == [Demand("o3:rpm", 1, 6, 54 / 60)]
    assert RateLimits().demands("o3", 30) == []
    assert [demand.name for demand in limits.demands("gpt-4o", -5, requests=0)] == ["gpt-4o:tpm"]


@given(
    limit=some.integers(1, 100_000),
    amounts=some.lists(some.integers(1, 500), min_size=1, max_size=300),
    pauses=some.lists(some.integers(0, 3 * MICROS_PER_SECOND), min_size=1, max_size=20),
)
def test_no_minute_sees_more_than_the_limit(limit: int, amounts: list[int], pauses: list[int]) -> None:
    demand = parse_rate_limits(f"m={limit}tpm").demands("m", 1)[0]
    now, full_at = 10**15, None
    taken: list[tuple[int, int]] = []
    for place, amount in enumerate(amounts):
        now += pauses[place % len(pauses)]
        wait, spent = spend(full_at, now, demand._replace(amount=min(amount, max(1, limit // 10))))
        # A patient caller reserves at once and calls after the wait.
        full_at = spent
        taken.append((now + wait, min(amount, max(1, limit // 10))))
    for start, _ in taken:
        within = sum(amount for at, amount in taken if start <= at < start + 60 * MICROS_PER_SECOND)
        assert within <= limit + 1 + math.ceil(limit * 0.001) + (limit <= 2)


@pytest.mark.parametrize(
    "full_at", [10**20, 2**63 - 1, 2 * MAX_DEBT_MICROS, "9999-12-31", float("inf"), float("nan")]
)
def test_a_state_that_no_call_can_leave_counts_as_full(full_at: Any) -> None:
    assert spend(full_at, 0, Demand("m", 1, 10, 1)) == spend(None, 0, Demand("m", 1, 10, 1))


def test_no_amount_empties_a_bucket_for_longer_than_a_week() -> None:
    _, spent_until = spend(None, 0, Demand("m", 1e18, 10, 1))
    assert spent_until == MAX_DEBT_MICROS
    wait, _ = spend(spent_until, 0, Demand("m", 1, 10, 1))
    assert 0 < wait <= MAX_DEBT_MICROS


def test_retry_later_takes_zero_or_more_seconds() -> None:
    assert str(ax.RetryLater(39.2, "gpt-4o is rate limited")) == "Waiting 40 s: gpt-4o is rate limited."
    assert not isinstance(ax.RetryLater(1), Exception)
    for bad in (-1, float("nan"), float("inf"), 10**5000):
        with pytest.raises(ax.UsageError, match="RetryLater needs seconds= from 0 to 3000000000, not "):
            ax.RetryLater(bad)

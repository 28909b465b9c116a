"""Rate limits: the setting, the bucket's arithmetic, and what to do when a call is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

import agentexec as ax
from agentexec.config import Settings
from agentexec.llm.rate_limits import (
    MICROS_PER_SECOND,
    Demand,
    ModelLimits,
    RateLimits,
    parse_rate_limits,
    spend,
)
from agentexec.runners.pacing import RetryableFailure, call_retry_delay, parse_retry_after


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
def test_limits_are_read(text: str, models: dict[str, ModelLimits]) -> None:
    assert parse_rate_limits(text).models == models


@pytest.mark.parametrize(
    ("text", "fault"),
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
def test_a_bad_limit_is_said_with_its_variable(
    text: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_rate_limits(text)
    settings = Settings()
    with pytest.raises(ax.SettingsError, match=f"AGENTEXEC_RATE_LIMITS cannot be used: .*{fault}"):
        settings.rate_limits = text


def test_a_model_has_its_own_limits_or_those_of_any() -> None:
    limits = parse_rate_limits("gpt-4o=600rpm,1000tpm *=60rpm")
    assert [(one.name, one.amount) for one in limits.demands("gpt-4o", 30)] == [
        ("gpt-4o:rpm", 1),
        ("gpt-4o:tpm", 30),
    ]
    assert limits.demands("o3", 30) == [Demand("o3:rpm", 1, 6, 54 / 60)]
    assert RateLimits().demands("o3", 30) == []
    assert [one.name for one in limits.demands("gpt-4o", -5, requests=0)] == ["gpt-4o:tpm"]


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
        # A patient caller: takes at once, goes after the wait.
        full_at = spent
        taken.append((now + wait, min(amount, max(1, limit // 10))))
    for start, _ in taken:
        within = sum(amount for at, amount in taken if start <= at < start + 60 * MICROS_PER_SECOND)
        assert within <= limit + 1 + math.ceil(limit * 0.001) + (limit <= 2)


@pytest.mark.parametrize(
    ("failure", "given", "wait"),
    [
        (RetryableFailure(True, 2), {}, 2),
        (RetryableFailure(True, 2), {"waited": 4}, 6),  # more than is left: the task is given back
        (RetryableFailure(True, 60), {}, 60),
        (RetryableFailure(True, 60), {"caller_retries": True}, 60),
        (RetryableFailure(True, 2), {"caller_retries": True}, None),
        (RetryableFailure(True, 2), {"failures": 9}, 2),
        (RetryableFailure(True, None), {}, 0.5),
        (RetryableFailure(True, None), {"failures": 2}, 1.0),
        (RetryableFailure(True, None), {"failures": 3}, None),
        (RetryableFailure(False, 60), {}, 0.5),
        (RetryableFailure(False, None), {"caller_retries": True}, None),
    ],
)
def test_what_to_do_when_a_call_is_refused(
    failure: RetryableFailure, given: dict[str, float], wait: float | None
) -> None:
    facts = {"failures": 1, "waited": 0.0, "max_wait": 5.0, "caller_retries": False, **given}
    assert call_retry_delay(failure, **facts) == wait  # type: ignore[arg-type]


def test_retry_after_is_read() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_retry_after("1500", "9", now) == 1.5
    assert parse_retry_after(None, "9", now) == 9
    assert parse_retry_after("x", "Thu, 01 Jan 2026 00:01:00 GMT", now) == 60
    assert parse_retry_after(None, "Thu, 01 Jan 2020 00:01:00 GMT", now) == 0
    assert parse_retry_after(None, "soon", now) is None
    assert parse_retry_after(None, None, now) is None


def test_retry_later_takes_seconds() -> None:
    assert str(ax.RetryLater(39.2, "gpt-4o is rate limited")) == "Waiting 40 s: gpt-4o is rate limited."
    assert not isinstance(ax.RetryLater(1), Exception)
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(ax.UsageError, match="0 or more"):
            ax.RetryLater(bad)

"""Counting takes a small share of the time, however long one count takes."""

from __future__ import annotations

from typing import Any

import pytest

from agentexec.worker.counting import INTERVAL, Counting


def test_a_count_is_due_after_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[Any] = []
    monkeypatch.setattr("agentexec.activity.queries.counts.refresh", counts.append)
    engine: Any = object()
    counting = Counting(engine)
    for clock in (1.0, 2.0, INTERVAL, INTERVAL + 1.0):
        counting.run_if_due(clock)
    assert counts == [engine, engine]


def test_after_a_slow_count_the_next_one_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[Any] = []
    monkeypatch.setattr("agentexec.activity.queries.counts.refresh", counts.append)
    moments = iter([0.0, 10.0, 300.0, 300.0])
    monkeypatch.setattr("agentexec.worker.counting.time.monotonic", lambda: next(moments))
    engine: Any = object()
    counting = Counting(engine)
    for clock in (1.0, 100.0, 200.0, 201.0):
        counting.run_if_due(clock)
    assert len(counts) == 2

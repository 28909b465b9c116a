"""Expectations of what model calls take, learned from those before."""

from __future__ import annotations

import pytest

from agentexec.journal.facts import Usage
from agentexec.runners.budgets import ANSWER_TOKENS, OUTLIER, TokenMeans


def usage(output_tokens: int) -> Usage:
    return Usage("m", 1, 100, 0, output_tokens)


def test_calls_are_expected_to_take_what_those_before_took() -> None:
    means = TokenMeans()
    assert means.expect("m", 100.0, None) == (101, ANSWER_TOKENS)
    means.note(usage(1_000), "m", 100.0)
    means.note(usage(2_000), "m", 100.0)
    assert means.expect("m", 100.0, None) == (101, 1_500)
    assert means.expect("m", 100.0, 20) == (101, 20)


@pytest.mark.parametrize(("odd", "most"), [(10**13, OUTLIER * ANSWER_TOKENS), (-(10**13), 1)])
def test_one_odd_answer_does_not_make_all_later_calls_too_dear(odd: int, most: int) -> None:
    means = TokenMeans()
    means.note(usage(odd), "m", 100.0)
    assert means.expect("m", 100.0, None)[1] == most

"""Decisions about calls, given what is recorded of them."""

from __future__ import annotations

import pytest

from agentexec.journal.calls import Decision, decide, needs_intent
from agentexec.journal.facts import Fact, FactKind
from agentexec.journal.recorder import POLICIES, Policy


def facts(*kinds: FactKind) -> list[Fact]:
    return [Fact("Clerk#1/call_1", seq, kind, "hash", "null") for seq, kind in enumerate(kinds)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_call_is_made_once(policy: Policy) -> None:
    assert decide([], policy) is Decision.RUN
    assert decide(facts(FactKind.INTENT, FactKind.OUTCOME), policy) is Decision.ANSWER
    assert decide(facts(FactKind.OUTCOME), policy) is Decision.ANSWER


@pytest.mark.parametrize("policy", POLICIES)
def test_a_call_that_raised_is_made_again(policy: Policy) -> None:
    recorded = facts(FactKind.INTENT, FactKind.RAISED)
    assert decide(recorded, policy) is Decision.RUN
    assert needs_intent(recorded, Decision.RUN)


@pytest.mark.parametrize(
    ("policy", "decision"),
    [
        ("fail", Decision.FAIL),
        ("ask", Decision.ASK),
        ("idempotent", Decision.RUN),
        ("transactional", Decision.RUN),
    ],
)
def test_the_policy_decides_about_a_call_that_was_cut_off(policy: Policy, decision: Decision) -> None:
    assert decide(facts(FactKind.INTENT), policy) is decision
    assert decide(facts(FactKind.INTENT, FactKind.RAISED, FactKind.INTENT), policy) is decision


def test_a_call_that_is_made_again_keeps_its_intent_unless_a_person_was_asked() -> None:
    cut_off = facts(FactKind.INTENT)
    assert not needs_intent(cut_off, Decision.RUN)
    assert needs_intent(cut_off, Decision.ASK)
    assert needs_intent([], Decision.RUN)

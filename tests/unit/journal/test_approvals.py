"""Decisions about questions to a person, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from agentexec.journal.approvals import verdict_on
from agentexec.journal.questions import (
    APPROVED,
    EXPIRED,
    MESSAGE_CHARS,
    MOOT,
    PENDING,
    REJECTED,
    Question,
    Verdict,
    call_text,
    earliest_expiry,
    waiting_message,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
QUESTION = Question("Clerk#1/call_1", 0, "approval", "charge", '{"cents":5}', LATER)


def row_of(status: str, message: str | None, expires_at: datetime | None, **values: Any) -> Any:
    empty = {"default_answer": None, "decided_arguments": None, "superseded_at": None}
    return SimpleNamespace(status=status, message=message, expires_at=expires_at, **{**empty, **values})


def test_a_question_that_was_not_asked_is_asked_again_if_need_be() -> None:
    assert verdict_on(QUESTION, None, NOW) == Verdict(MOOT, None, LATER, is_superseded=True)


@pytest.mark.parametrize(
    ("expires_at", "status"), [(None, PENDING), (LATER, PENDING), (NOW, EXPIRED)], ids=str
)
def test_an_open_question_expires_at_the_deadline_with_which_it_was_asked(
    expires_at: datetime | None, status: str
) -> None:
    row = row_of(PENDING, None, expires_at)
    assert verdict_on(QUESTION, row, NOW) == Verdict(status, None, expires_at)


def test_an_answer_stays_when_the_deadline_has_passed() -> None:
    row = row_of(REJECTED, "Too much.", NOW)
    assert verdict_on(QUESTION, row, LATER) == Verdict(REJECTED, "Too much.", NOW)


def test_only_open_questions_bring_a_task_back() -> None:
    verdicts = [
        Verdict(APPROVED, None, NOW),
        Verdict(PENDING, None, None),
        Verdict(PENDING, None, LATER),
    ]
    assert earliest_expiry(verdicts) == LATER
    assert earliest_expiry(verdicts[:2]) is None


def test_the_log_names_the_calls_whose_questions_are_open() -> None:
    repeat = QUESTION._replace(kind="repeat", tool="book")
    verdicts = [Verdict(PENDING, None, None)] * 2 + [Verdict(APPROVED, None, None)]
    assert waiting_message([QUESTION, repeat, QUESTION], verdicts) == (
        'Waiting for approval: charge({"cents":5}), book({"cents":5}), which was cut off, to be made again'
    )


def test_long_arguments_are_cut_in_the_log() -> None:
    assert call_text("charge", "5" * MESSAGE_CHARS) == f"charge({'5' * MESSAGE_CHARS})"
    assert call_text("charge", "5" * (MESSAGE_CHARS + 1)) == f"charge({'5' * MESSAGE_CHARS}…)"

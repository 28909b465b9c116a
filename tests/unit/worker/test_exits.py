"""Decisions about processes that have ended."""

from __future__ import annotations

import pytest

from agentexec.worker.exits import exit_reason, restart_delay


def test_a_child_is_replaced_immediately_after_its_first_death_and_later_after_further_ones() -> None:
    assert restart_delay(0) == restart_delay(1) == 0.0
    assert 0 < restart_delay(2) < restart_delay(4) <= 15.0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, "has stopped"),
        (3, "exited with code 3"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL (out of memory?)"),
        (-99, "was killed by signal 99"),
    ],
)
def test_an_exit_code_is_described(code: int, reason: str) -> None:
    assert exit_reason(code) == reason

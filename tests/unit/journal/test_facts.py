"""Paths of the journal."""

from __future__ import annotations

from agentexec.journal.facts import fit_path


def test_a_long_path_keeps_apart_what_differs_at_its_end() -> None:
    first, other = fit_path("x" * 300 + "1"), fit_path("x" * 300 + "2")
    assert first != other
    assert len(first) == len(other) == 255
    assert fit_path("short") == "short"

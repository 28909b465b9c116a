"""The console of the monitor."""

from __future__ import annotations

import pytest

from agentexec.cli.screen.plain import make_console


def test_no_color_turns_colors_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert make_console().no_color


def test_an_exported_width_from_before_a_resize_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "7")
    assert make_console().width != 7

"""Plain text for the terminal."""

from __future__ import annotations

from agentexec.cli.output import format_table, one_line


def test_control_characters_and_line_breaks_become_spaces() -> None:
    assert one_line("\x1b[2Jgone\nsecond\u202e") == " [2Jgone second "
    assert one_line(None) == ""


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert format_table(("A", "LONG", "LAST"), [("first", "x", "y"), ("a", "b", "")]) == [
        "A      LONG  LAST",
        "first  x     y",
        "a      b",
    ]

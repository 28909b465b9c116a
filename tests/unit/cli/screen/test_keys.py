"""Keys as a terminal sends them."""

from __future__ import annotations

import pytest

from agentexec.cli.screen.keys import parse


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("\x1b[A\x1bOB", ["up", "down"]),
        ("\x1b[5~\x1b[6~", ["page up", "page down"]),
        ("\x1b", ["escape"]),
        ("\r\n\x7f\x03", ["enter", "enter", "backspace", "q"]),
        ("a日?", ["a", "日", "?"]),
        ("\x01x", ["x"]),
    ],
)
def test_escape_sequences_are_keys_and_characters_are_themselves(sent: str, keys: list[str]) -> None:
    assert parse(sent) == keys

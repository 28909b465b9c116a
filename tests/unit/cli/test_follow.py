"""Progress of one task."""

from __future__ import annotations

import pytest

from agentexec.cli.follow import make_console


def test_a_message_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("[red]done[/red] :smile: 100%", soft_wrap=True)
    assert capsys.readouterr().err == "[red]done[/red] :smile: 100%\n"

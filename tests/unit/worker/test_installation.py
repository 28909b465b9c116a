"""The commands that run agentexec's own modules."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentexec as ax
from agentexec.worker.installation import own_module


def test_our_processes_do_not_look_into_the_current_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_module("agentexec.worker.template")[1:] == ["-P", "-m", "agentexec.worker.template"]


def test_an_agentexec_that_is_not_installed_is_found_in_the_current_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(ax.__file__ or "").parents[1])
    assert "-P" not in own_module("agentexec.worker.template")

"""Conversations, killed at every instant: each message has one turn, and the history is that of a run without a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deployment import REPOSITORY, run_python
from tests.faults.test_crash_matrix import WHOLE
from tests.waiting import patient

EVERY = 1 if WHOLE else 9
"""Instants from one kill to the next."""

MODES = ("run", "run_streamed") if WHOLE else ("run_streamed",)

TARGETS = ("embedded", "postgres", "valkey+postgres") if WHOLE else ("valkey+postgres",)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", ["queue", "steer", "interrupt"] if WHOLE else ["interrupt"])
def test_a_conversation_killed_at_any_instant_ends_as_if_nothing_had_happened(
    shape: str, mode: str, target: str, tmp_path: Path
) -> None:
    options = ["--target", target, "--every", str(EVERY)]
    program = ("-m", "tests.faults.chat_program", *options, str(tmp_path), f"{shape}-{mode}")
    done = run_python(*program, cwd=REPOSITORY, timeout=patient(440))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["complaints"] == []
    assert report["instants"] >= 40
    assert report["kills"] > report["instants"] / EVERY

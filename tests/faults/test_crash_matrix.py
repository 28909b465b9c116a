"""Durable runs, killed at every instant: what is recorded is not done again, and the end is the same to the byte."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.deployment import REPOSITORY, run_python
from tests.stores import KEY
from tests.waiting import patient

WHOLE = os.environ.get("AGENTEXEC_TEST_CRASHES") == "all"
"""True for every case and every instant, which takes minutes; else the cases below."""

EVERY = 1 if WHOLE else 12
"""Instants from one kill to the next."""

ALL_CASES = [
    f"{shape}-{mode}-{session}"
    for shape in ("handoff", "nested", "parallel", "guardrail", "approval", "local", "sandbox", "background")
    for mode in ("run", "run_streamed")
    for session in ("alone", "session")
]
SOME_CASES = [
    "handoff-run-session",
    "nested-run_streamed-session",
    "parallel-run_streamed-alone",
    "guardrail-run-session",
    "approval-run_streamed-session",
    "background-run_streamed-alone",
]
"""Every shape but the local tools' and the sandbox's, which test_local_tools.py and test_sandbox.py in
tests/integration/runners/openai cut at every record."""


@pytest.mark.thorough
@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", ALL_CASES if WHOLE else SOME_CASES)
def test_a_run_killed_at_any_instant_ends_as_if_nothing_had_happened(case: str, tmp_path: Path) -> None:
    # The journal of runs with a session is encrypted as well, which no kill may show.
    settings = {"AGENTEXEC_ENCRYPTION_KEYS": KEY} if case.endswith("-session") else {}
    # Streamed runs have most values in the payload store: nothing that the journal refers to may be missing.
    payloads = tmp_path / "payloads"
    if "-run_streamed-" in case:
        payloads.mkdir()
        settings |= {"AGENTEXEC_PAYLOAD_STORE": payloads.as_uri(), "AGENTEXEC_PAYLOAD_THRESHOLD": "256"}
    done = run_python(
        "-m",
        "tests.faults.crash_program",
        str(tmp_path),
        case,
        "--every",
        str(EVERY),
        cwd=REPOSITORY,
        timeout=patient(390),
        **settings,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["complaints"] == []
    assert payloads.is_dir() == any(payloads.rglob("journal-*"))
    assert report["instants"] >= 10
    assert report["missed"] <= 2 + report["kills"] // 5
    # Every single append is killed, too: those that share a transaction are killed together.
    assert report["kills"] + report["missed"] > report["instants"] * (1 + 2 / EVERY) / 3

"""The example of recorded runs in CI: it passes as it is, and fails with the difference after a change."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "replay"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLE, tmp_path / "replay", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "replay"


def run_tests(example: Path) -> tuple[int, str]:
    """Run the command of the workflow, without a key and without settings."""
    workflow = (example / ".github/workflows/test.yml").read_text(encoding="utf-8")
    [command] = re.findall(r"- run: python (-m pytest)$", workflow, re.MULTILINE)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENTEXEC_", "OPENAI_", "PYTEST_"))
    }
    done = subprocess.run(
        [sys.executable, *command.split(), "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=example,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.thorough
def test_recorded_runs_pass_in_ci_and_show_what_a_change_does(example: Path) -> None:
    code, printed = run_tests(example)
    assert code == 0, printed
    assert "2 passed" in printed
    worker = example / "worker.py"
    source = worker.read_text(encoding="utf-8")
    worker.write_text(source.replace("Complaint: ", "A complaint: "), encoding="utf-8")
    code, printed = run_tests(example)
    assert code == 1
    assert "model call 1 of Clerk#1 has another input than was recorded" in printed
    assert '-    "content": "Complaint: The lamp of order 1017 came broken."' in printed

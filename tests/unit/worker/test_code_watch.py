"""Changes of Python files are noticed, and nothing else is."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import pytest

from agentexec.errors import SettingsError
from agentexec.worker.code_watch import CodeWatch
from tests.waiting import wait_until


def test_a_changed_python_file_is_told_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = threading.Event()
    (tmp_path / "inner").mkdir()
    (tmp_path / ".venv").mkdir()
    with caplog.at_level(logging.INFO):
        watch = CodeWatch([str(tmp_path), str(tmp_path / "inner"), str(tmp_path / "missing")], changed.set)
        try:
            number = 0

            def told() -> bool:
                # The system may begin to watch a moment after the thread has started.
                nonlocal number
                number += 1
                for name in ("agentexec.db", "notes.txt", ".venv/library.py"):
                    (tmp_path / name).write_text(str(number))
                (tmp_path / "inner" / "code.py").write_text(f"number = {number}")
                return changed.wait(1.0)

            wait_until(told, timeout=30)
        finally:
            watch.close()
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == [f"Watching the Python files in {tmp_path}.", "Changed: code.py."]


def test_without_watchfiles_the_option_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(SettingsError, match=r"pip install 'agentexec\[reload\]'"):
        CodeWatch([], lambda: None)

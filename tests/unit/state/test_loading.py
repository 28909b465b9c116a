"""Backends are loaded by name, and the error says what one lacks."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import BackendInvalidError
from agentexec.state.backend import StateBackend
from agentexec.state.loading import load_backend


class TestLoadBackend:
    """Each of these modules lacks something, and the error names it."""

    @pytest.mark.parametrize("module", ["agentexec.state.no_such_backend", "no_such_package.backend"])
    def test_a_module_that_cannot_be_imported(self, module: str) -> None:
        with pytest.raises(BackendInvalidError, match=f"{module}, which cannot be imported"):
            load(module)

    def test_a_module_without_create(self) -> None:
        with pytest.raises(BackendInvalidError, match=r"json, which lacks create\(settings, engine\)"):
            load("json")

    def test_a_backend_without_some_methods(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "partial_backend.py").write_text(
            "from agentexec.state.memory_backend import MemoryBackend\n"
            "class Partial:\n"
            "    pass\n"
            "for name in dir(MemoryBackend):\n"
            "    if not name.startswith('_') and name not in ('renew', 'transactional', 'notify_done'):\n"
            "        setattr(Partial, name, getattr(MemoryBackend, name))\n"
            "def create(settings, engine):\n"
            "    return Partial()\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(BackendInvalidError) as caught:
            load("partial_backend")
        message = str(caught.value)
        assert "of partial_backend lacks transactional, renew, notify_done;" in message


def load(module: str) -> StateBackend:
    return load_backend(module, Settings(), create_engine("sqlite://"))

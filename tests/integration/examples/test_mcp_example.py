"""The example of an assistant: it reads the tasks over MCP, and has no tool that was not allowed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import agentexec as ax
from tests.deployment import REPOSITORY


@pytest.mark.thorough
async def test_the_assistant_reads_what_failed(
    tmp_path: Path, sqlite_tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples/mcp"))
    for name in ("assistant", "worker"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assistant, worker = importlib.import_module("assistant"), importlib.import_module("worker")
    monkeypatch.setenv("AGENTEXEC_DATABASE_URL", sqlite_tables)

    async with ax.testing.harness(worker.pool, engine=create_engine(sqlite_tables)) as harness:
        failed = await harness.run("book_invoice", {"number": 8, "amount": 0})
        harness.model.call_tool("show", {"agent_id": str(failed.agent_id)}).say("Invoice 8 has no amount.")
        assert await assistant.answer("What failed, and why?") == "Invoice 8 has no amount."
        first, second = harness.model.calls
        assert {tool.name for tool in first.tools} == {"list", "show", "logs", "approvals"}
        assert "invoice 8 has the amount 0" in str(second.input[-1])
    for name in ("assistant", "worker"):
        sys.modules.pop(name, None)

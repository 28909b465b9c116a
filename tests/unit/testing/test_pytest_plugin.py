"""The pytest plugin: what it loads, and that its fixture leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys

import agentexec as ax
from agentexec.runtime import RUNTIME
from agentexec.testing import pytest_plugin

pool = ax.Pool()


@pool.task("double")
async def double(agent_id, context):  # type: ignore[no-untyped-def]
    return context["number"] * 2


def test_the_plugin_loads_no_database_and_no_agents_sdk() -> None:
    code = "import sys, agentexec.testing.pytest_plugin; print({'sqlalchemy', 'agents', 'redis'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_the_fixture_opens_a_harness_and_closes_it() -> None:
    fixture = pytest_plugin.ax_pool.__wrapped__()  # type: ignore[attr-defined]
    harness = next(fixture)(pool)
    assert harness.run("double", {"number": 21}).result == 42
    inside = RUNTIME.engine
    fixture.close()
    ax.configure(database_url="sqlite://")
    assert RUNTIME.engine is not inside
    RUNTIME.close()

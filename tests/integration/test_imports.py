"""Importing a module loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentexec.cli import verbs
from tests.deployment import run_agentexec, run_python
from tests.unit.test_public_names import MODULES
from tests.waiting import patient


def test_the_agents_sdk_is_not_imported_without_need(tmp_path: Path) -> None:
    program = """
import sys
import agentexec as ax
pool = ax.Pool()

@pool.task("adds")
def add(agent_id, context):
    return 3

from agentexec.testing import Harness  # must not make `harness` a module
with ax.testing.harness(pool) as harness:
    assert harness.run("adds").result == 3
assert "agents" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=patient(30))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_the_base_does_not_import_the_sdk() -> None:
    program = (
        "import sys, agentexec, agentexec.runners.base\n"
        "agentexec.BaseAgentRunner\n"
        "assert 'agents' not in sys.modules and 'openai' not in sys.modules\n"
        "agentexec.OpenAIRunner\n"
        "assert 'agents' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=patient(60))


@pytest.mark.thorough
def test_every_name_is_there_also_after_all_modules_are_loaded() -> None:
    program = """
import pkgutil, types, importlib, agentexec as ax
for module in pkgutil.iter_modules(ax.__path__):
    if not module.name.startswith("__"):
        importlib.import_module(f"agentexec.{module.name}")
print([name for name in ax.__all__ if isinstance(getattr(ax, name), types.ModuleType)])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # `queues` is a module elsewhere.
    assert done.stdout.strip() == str(sorted({*MODULES, "queues"}))


def test_the_library_does_not_import_fastapi() -> None:
    program = "import sys, agentexec as ax; ax.activity.stream; assert 'fastapi' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=patient(60))


LOADED = "import sys; print([name for name in {names} if name in sys.modules])"


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import agentexec", ["agents", "sqlalchemy", "redis", "typer", "rich", "alembic", "psutil"]),
        ("import agentexec as ax; ax.Pool, ax.enqueue, ax.Base, ax.activity.list", ["agents", "alembic"]),
        (
            "import agentexec as ax; ax.activity.list",
            [
                "agentexec.activity.changes.store",
                "agentexec.activity.live.stream",
                "agentexec.state.sql_backend",
                "sqlalchemy.dialects.postgresql",
            ],
        ),
        (
            "import agentexec as ax; ax.enqueue_sync",
            [
                "sqlalchemy.dialects.postgresql",
                "agentexec.journal.recorder",
                "agentexec.journal.models",
                "agentexec.schema.tables",
                "agentexec.conversations",
            ],
        ),
        (
            "import agentexec.worker.supervisor_main",
            [
                "agents",
                "sqlalchemy",
                "redis",
                "alembic",
                "typer",
                "pydantic",
                "asyncio",
                "http.server",
                "email",
            ],
        ),
        ("import agentexec.cli.app", ["agents", "sqlalchemy", "redis", "alembic", "psutil"]),
        ("import agentexec.worker.template", ["agents", "typer", "rich", "alembic"]),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(program: str, absent: list[str], tmp_path: Path) -> None:
    done = run_python("-c", f"{program}\n{LOADED.format(names=absent)}", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_pattern_of_secrets_is_compiled_when_it_is_needed(tmp_path: Path) -> None:
    program = (
        "import re, agentexec.redaction as redaction\n"
        "compiled, compile = [], re.compile\n"
        "re.compile = lambda *pattern: compiled.append(pattern) or compile(*pattern)\n"
        "redaction.redact('plain'); first = len(compiled); redaction.redact('token=abc at http://x')\n"
        "print(0 < first < len(compiled))"
    )
    done = run_python("-c", program, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")


SPY = """
import atexit, os, sys
if "agentexec" in " ".join(sys.orig_argv) and "template" not in " ".join(sys.orig_argv):
    atexit.register(lambda: open(os.environ["SPY"], "w").write(" ".join(sys.modules)))
"""
"""A sitecustomize that writes down what a process of the command line had loaded when it ended."""


HEAVY = {"agents", "redis", "alembic"}

VERBS = {f"agentexec.cli.{verb.replace('-', '_')}" for verb in verbs.VERBS}
"""Each verb's own module."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"agents", "sqlalchemy", "redis", "alembic", "rich"}),
        (["version"], (HEAVY | {"sqlalchemy", "rich"} | VERBS) - {"agentexec.cli.version"}),
        (["migrate"], {"agents", "redis"}),
        (
            ["list"],
            HEAVY
            | {"rich", "agentexec.cli.doctor", "agentexec.cli.enqueue", "agentexec.journal.models"}
            | {"agentexec.activity.changes.store", "agentexec.activity.live.stream"},
        ),
        (["monitor", "--once"], HEAVY | {"agentexec.cli.doctor", "agentexec.journal.models"}),
        pytest.param(
            ["monitor", "--json"],
            HEAVY | {"agentexec.cli.doctor", "agentexec.journal.models", "rich"},
            marks=pytest.mark.thorough,
        ),
        pytest.param(["doctor"], HEAVY | {"rich", "agentexec.cli.monitor"}, marks=pytest.mark.thorough),
        pytest.param(["migrate", "--revision=head"], HEAVY | {"rich"}, marks=pytest.mark.thorough),
        (
            ["show", "0190a6e2-7d4f-7c3a-9d55-0242ac120002"],
            HEAVY
            | {"rich", "agentexec.activity.changes.store", "agentexec.activity.live.stream"}
            | {"agentexec.client.approve", "agentexec.journal.store", "agentexec.journal.forks"},
        ),
        (
            ["enqueue", "work"],
            HEAVY | {"rich", "agentexec.activity.schemas", "agentexec.activity.queries.listing"},
        ),
        pytest.param(
            ["cancel", "0190a6e2-7d4f-7c3a-9d55-0242ac120002"], HEAVY | {"rich"}, marks=pytest.mark.thorough
        ),
        pytest.param(["cancel-pending", "--yes"], HEAVY | {"rich"}, marks=pytest.mark.thorough),
        (["worker", "no_such_module"], HEAVY | {"sqlalchemy", "typer", "pydantic", "asyncio", "email"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_no_command_loads_the_agents_sdk_and_the_supervisor_loads_no_database(
    arguments: list[str], absent: set[str], sqlite_tables: str, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SPY)
    variables = {"PYTHONPATH": str(tmp_path / "site"), "SPY": str(tmp_path / "spy")}
    if arguments[0] != "migrate":
        variables["AGENTEXEC_DATABASE_URL"] = sqlite_tables
    elif arguments != ["migrate"]:
        assert run_agentexec("migrate", cwd=tmp_path).returncode == 0
    run_agentexec(*arguments, cwd=tmp_path, **variables)
    loaded = set((tmp_path / "spy").read_text().split())
    assert ("agentexec.worker.supervisor" if arguments[0] == "worker" else "agentexec.cli.app") in loaded
    assert not loaded & absent

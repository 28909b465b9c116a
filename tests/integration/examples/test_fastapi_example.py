"""The example application with FastAPI."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from agentexec.schema.tables import is_at_head
from tests.deployment import REPOSITORY, run_python

EXAMPLE = REPOSITORY / "examples" / "openai-agents-fastapi"
PATIENCE = 60.0
"""Seconds for what takes a second on a machine that does nothing else."""

ALEMBIC = """
import sys
from alembic.config import main
for command in sys.argv[1:]:
    main(["--config", "alembic.ini", *command.split()])
"""
"""Program that runs Alembic's commands one after the other: starting it takes longer than they do."""


def alembic(*commands: str, url: str) -> str:
    """Return what Alembic prints; it must succeed."""
    done = run_python("-c", ALEMBIC, *commands, cwd=EXAMPLE, timeout=PATIENCE, DATABASE_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_alembic_makes_all_tables_and_autogenerate_finds_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    assert "No new upgrade operations detected" in alembic("upgrade head", "check", url=url)
    assert {"report", "agentexec_activity", "agentexec_alembic_version", "alembic_version"} <= tables(url)
    # agentexec takes the tables for its own: nothing is left for `agentexec migrate`.
    engine = create_engine(url)
    assert is_at_head(engine)
    engine.dispose()


@pytest.mark.thorough
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_alembic_goes_down_and_up_again(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        url = f"sqlite:///{tmp_path / 'app.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    alembic("upgrade head", "check", "downgrade base", url=url)
    assert tables(url) == {"agentexec_alembic_version", "alembic_version"}
    alembic("upgrade head", "check", url=url)

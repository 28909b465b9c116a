"""Migrations and `create_all` make the same schema, and a worker refuses an unknown one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, text

import agentexec as ax
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.db.clock import utc_now
from agentexec.db.engine import open_engine
from agentexec.schema.migrate import downgrade, upgrade
from agentexec.schema.tables import check_schema, revisions, version_table
from agentexec.task import new_agent_id
from tests.deployment import MODULE, REPOSITORY, run_agentexec, run_python

TEN_PROCESSES = """
import os
from agentexec.schema import migrate
from agentexec.db.engine import open_engine
from agentexec.schema.tables import check_schema
from alembic import command, script
from alembic.runtime import migration

children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        try:
            migrate.upgrade(open_engine(os.environ["AGENTEXEC_DATABASE_URL"]))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""
"""Program in which ten processes migrate. They are forked after the imports, so they run at the same time."""

CREATE_IN_FOUR_PROCESSES = """
import os, sys
import agentexec as ax
from sqlalchemy import create_engine

ax.Base
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        try:
            engine = create_engine(sys.argv[1])
            if sys.argv[2] == "engine":
                ax.Base.metadata.create_all(engine)
            else:
                with engine.begin() as connection:
                    ax.Base.metadata.create_all(connection)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""
"""Program in which four processes make the tables, on engines that are the user's own."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


def _storage(engine: Engine, table: str) -> list[str]:
    """Return the storage parameters of a table on PostgreSQL."""
    if engine.dialect.name != "postgresql":
        return []
    query = text("SELECT reloptions FROM pg_class WHERE relname = :table")
    with engine.connect() as connection:
        return sorted(connection.execute(query, {"table": table}).scalar() or [])


def reflected(engine: Engine) -> dict[str, Any]:
    """Return the definitions of agentexec's tables in a database, without Alembic's own table."""
    inspector = inspect(engine)
    return {
        table: {
            "columns": {
                column["name"]: (
                    str(column["type"]),
                    column["nullable"],
                    column["default"],
                    column.get("autoincrement"),
                )
                for column in inspector.get_columns(table)
            },
            "primary key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign keys": sorted(
                (key["constrained_columns"], key["referred_table"], key["referred_columns"], key["options"])
                for key in inspector.get_foreign_keys(table)
            ),
            "indexes": {
                index["name"]: (
                    index["column_names"],
                    bool(index["unique"]),
                    {name: str(value) for name, value in index.get("dialect_options", {}).items()},
                )
                for index in inspector.get_indexes(table)
            },
            "unique": sorted(
                str(unique["column_names"]) for unique in inspector.get_unique_constraints(table)
            ),
            "checks": sorted(check["sqltext"] for check in inspector.get_check_constraints(table)),
            "storage": _storage(engine, table),
        }
        for table in inspector.get_table_names()
        if table != version_table()
    }


def test_migrations_make_the_same_schema_as_create_all(engine: Engine) -> None:
    ax.Base.metadata.create_all(engine)
    created = reflected(engine)
    ax.Base.metadata.drop_all(engine)
    assert reflected(engine) == {}
    upgrade(engine)
    assert reflected(engine) == created
    assert {"agentexec_activity", "agentexec_activity_log"} <= created.keys()


def test_a_worker_accepts_a_schema_by_migrations_or_create_all(engine: Engine) -> None:
    ax.Base.metadata.create_all(engine)
    check_schema(engine)
    ax.Base.metadata.drop_all(engine)
    upgrade(engine)
    check_schema(engine)


@pytest.mark.thorough
def test_migrating_down_to_base_leaves_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.render_as_string(hide_password=False)
    upgrade(engine)
    done = run_agentexec("migrate", "--revision", "base", cwd=tmp_path, AGENTEXEC_DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert reflected(engine) == {}


@pytest.mark.thorough
def test_ten_processes_may_migrate_at_the_same_time(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.render_as_string(hide_password=False)
    done = run_python("-c", TEN_PROCESSES, cwd=tmp_path, AGENTEXEC_DATABASE_URL=url)
    assert done.stdout == f"{[0] * 10}\n", done.stdout + done.stderr
    check_schema(engine)


@pytest.mark.thorough
@pytest.mark.parametrize("bind", ["engine", "connection"])
def test_several_processes_may_create_the_tables_at_the_same_time(
    engine: Engine, tmp_path: Path, bind: str
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    done = run_python("-c", CREATE_IN_FOUR_PROCESSES, url, bind, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"{[0] * 4}\n", "")
    check_schema(engine)


@pytest.mark.thorough
def test_migrate_works_from_any_folder_and_twice(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.render_as_string(hide_password=False)
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    for _ in range(2):
        done = run_agentexec("migrate", cwd=tmp_path, DATABASE_URL=url)
        assert done.returncode == 0, done.stderr
        assert "at revision" in done.stdout
    check_schema(engine)
    with engine.connect() as connection:
        version = connection.execute(text("SELECT version_num FROM agentexec_alembic_version")).scalar()
    assert version == revisions()[-1]


@pytest.mark.thorough
def test_the_wheel_contains_the_migrations_and_the_dashboard(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("./dev puts uv into its environment")
    built = tmp_path / "dist"
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", built], cwd=REPOSITORY, check=True)
    [wheel] = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    variables = {"PYTHONPATH": str(tmp_path / "installed"), "AGENTEXEC_DATABASE_URL": "sqlite:///app.db"}
    where = run_python(
        "-c", "import agentexec.schema.tables as s; print(s.migrations_folder())", cwd=folder, **variables
    )
    assert where.stdout.startswith(str(tmp_path / "installed")), where.stderr
    for arguments in ([], ["--check"]):
        done = run_agentexec("migrate", *arguments, cwd=folder, **variables)
        assert done.returncode == 0, done.stderr
    page = "import agentexec.web.page as p; print(p.Page(has_login=False)._files.keys())"
    files = run_python("-c", page, cwd=folder, **variables)
    assert ".js" in files.stdout and ".css" in files.stdout, files.stderr


def test_an_applications_own_alembic_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [("theirs",)]


@pytest.mark.thorough
def test_check_changes_nothing_and_gives_advice(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.render_as_string(hide_password=False)
    done = run_agentexec("migrate", "--check", cwd=tmp_path, AGENTEXEC_DATABASE_URL=url)
    assert done.returncode == 5
    assert "run `agentexec migrate`" in done.stderr
    assert inspect(engine).get_table_names() == []
    upgrade(engine)
    done = run_agentexec("migrate", "--check", cwd=tmp_path, AGENTEXEC_DATABASE_URL=url)
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_sql_for_a_person_to_run_makes_the_same_schema(tmp_path: Path) -> None:
    done = run_agentexec("migrate", "--sql", cwd=tmp_path, AGENTEXEC_DATABASE_URL="sqlite:///app.db")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "app.db").exists() or (tmp_path / "app.db").stat().st_size == 0
    with sqlite3.connect(tmp_path / "by_hand.db") as connection:
        connection.executescript(done.stdout)
    by_hand = create_engine(f"sqlite:///{tmp_path / 'by_hand.db'}")
    by_code = create_engine(f"sqlite:///{tmp_path / 'by_code.db'}")
    ax.Base.metadata.create_all(by_code)
    assert reflected(by_hand) == reflected(by_code)
    check_schema(by_hand)


@pytest.mark.thorough
def test_sql_is_in_the_dialect_of_the_database(postgres_url: str, tmp_path: Path) -> None:
    done = run_agentexec("migrate", "--sql", cwd=tmp_path, AGENTEXEC_DATABASE_URL=postgres_url)
    assert "JSONB" in done.stdout
    assert "TIMESTAMP WITH TIME ZONE" in done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("revision", ["nonsense", "9999"])
def test_an_unknown_revision_is_refused(revision: str, tmp_path: Path, sqlite_url: str) -> None:
    done = run_agentexec("migrate", "-r", revision, cwd=tmp_path, AGENTEXEC_DATABASE_URL=sqlite_url)
    assert done.returncode == 2
    assert f"There is no revision {revision}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_refuses_a_database_without_the_schema(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.render_as_string(hide_password=False)
    done = run_agentexec("worker", str(MODULE), cwd=tmp_path, AGENTEXEC_DATABASE_URL=url)
    assert done.returncode == 5, done.stderr
    assert "run `agentexec migrate" in done.stderr
    assert "Traceback" not in done.stderr
    assert inspect(engine).get_table_names() == []


@pytest.mark.thorough
def test_a_worker_refuses_a_database_that_is_newer_than_its_release(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.render_as_string(hide_password=False)
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE agentexec_alembic_version SET version_num = '9999'"))
    done = run_agentexec("worker", str(MODULE), cwd=tmp_path, AGENTEXEC_DATABASE_URL=url)
    assert done.returncode == 5, done.stderr
    assert "revision 9999, which is newer" in done.stderr
    assert "upgrade agentexec" in done.stderr
    done = run_agentexec("migrate", cwd=tmp_path, AGENTEXEC_DATABASE_URL=url)
    assert done.returncode == 5, "and so does a migration"
    assert "newer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_migrations_and_create_all_use_the_table_prefix(tmp_path: Path) -> None:
    variables = {"AGENTEXEC_DATABASE_URL": "sqlite:///app.db", "AGENTEXEC_TABLE_PREFIX": "ours_"}
    done = run_agentexec("migrate", cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    create = "import agentexec as ax, sqlalchemy as sa; ax.Base.metadata.create_all(sa.create_engine('sqlite:///b.db'))"
    assert run_python("-c", create, cwd=tmp_path, **variables).returncode == 0
    migrated, created = (
        create_engine(make_url(f"sqlite:///{tmp_path / name}")) for name in ("app.db", "b.db")
    )
    tables = set(inspect(migrated).get_table_names())
    assert all(name.startswith("ours_") for name in tables if not name.startswith("sqlite_"))
    assert tables - {"ours_alembic_version"} == set(inspect(created).get_table_names())


@pytest.mark.parametrize("made_by", ["this release", "the release before"])
def test_tables_of_create_all_are_taken_over_by_a_migration(database_url: str, made_by: str) -> None:
    engine = open_engine(database_url)
    ax.Base.metadata.create_all(engine)
    with engine.begin() as connection:
        insert_tasks(
            connection, [NewTask(new_agent_id(), "kept", None, "q", 1, None, None, None, "")], utc_now()
        )
    if made_by == "the release before":
        upgrade(engine)
        downgrade(engine, revisions()[-2])
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE {version_table()}"))
        ax.Base.metadata.create_all(engine)  # by this release, which adds tables, but no columns
    upgrade(engine)
    check_schema(engine)
    with engine.connect() as connection:
        assert (
            connection.execute(text(f"SELECT version_num FROM {version_table()}")).scalar() == revisions()[-1]
        )
        assert connection.execute(text("SELECT agent_type FROM agentexec_activity")).scalars().all() == [
            "kept"
        ]
    upgrade(engine)
    engine.dispose()


def test_tables_of_create_all_that_are_too_old_are_explained(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE agentexec_activity (agent_id TEXT)"))
    with pytest.raises(ax.SchemaError, match="old release"):
        upgrade(engine)
    engine.dispose()

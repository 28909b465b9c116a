"""`agentexec migrate`: bring the database to the schema of this release."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

import agentexec as ax


def run(
    revision: Annotated[
        str, typer.Option("--revision", "-r", help="Revision to go to, up or down: a number, head or base.")
    ] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with code 5 if a migration is missing.")
    ] = False,
) -> None:
    """Create or update agentexec's tables. Any number of processes may do so at once."""
    # Imported on use: the other commands start faster without SQLAlchemy and Alembic.
    migrate = importlib.import_module("agentexec.schema.migrate")
    urls = importlib.import_module("agentexec.db.urls")
    engine = ax.get_engine()
    if sql:
        migrate.print_sql(engine, revision)
        return
    if not check:
        migrate.migrate_to(engine, revision)
    if check or revision == "head":
        migrate.check(engine)
    typer.echo(f"{urls.safe_url(engine.url)} is at revision {revision}.")

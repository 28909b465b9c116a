"""`agentexec migrate`: bring the database to the schema of this release."""

from __future__ import annotations

from typing import Annotated

import typer

import agentexec as ax


def run(
    revision: Annotated[
        str,
        typer.Option("--revision", "-r", help="Revision to migrate to, up or down: a number, head or base."),
    ] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing, and exit with 5 if a migration is missing.")
    ] = False,
    state: Annotated[
        bool,
        typer.Option("--state", help="Create what the state backend needs instead: the table in DynamoDB."),
    ] = False,
) -> None:
    """Create or update agentexec's tables. Several processes may run this at once."""
    if state:
        if sql or check or revision != "head":
            raise ax.UsageError("`agentexec migrate --state` takes no other option: call it by itself.")
        from agentexec.state.loading import create_storage

        typer.echo(create_storage(ax.CONF.backend_module, ax.CONF))
        return
    # Imported on use: the other commands start faster without SQLAlchemy and Alembic.
    from agentexec.db.urls import safe_url
    from agentexec.schema import migrate

    engine = ax.get_engine()
    if sql:
        migrate.print_sql(engine, revision)
        return
    if not check:
        migrate.migrate_to(engine, revision)
    if check or revision == "head":
        migrate.check(engine)
    typer.echo(f"{safe_url(engine.url)} is at revision {revision}.")

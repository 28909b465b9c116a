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
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition",
            metavar="INTERVAL",
            help="Also partition log and journal by time on PostgreSQL: daily, weekly or monthly.",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        bool,
        typer.Option("--state", help="Create what the state backend needs instead: the table in DynamoDB."),
    ] = False,
) -> None:
    """Create or update agentexec's tables. Several processes may run this at once."""
    others = sql or check or revision != "head"
    if state:
        _require_alone("--state", others or partition)
        from agentexec.state.loading import create_storage

        typer.echo(create_storage(ax.CONF.backend_module, ax.CONF))
        return
    if partition is not None:
        _require_alone("--partition", others)
        _partition(partition)
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


def _require_alone(option: str, others: object) -> None:
    if others:
        raise ax.UsageError(f"`agentexec migrate {option}` takes no other option: call it by itself.")


def _partition(interval: str) -> None:
    from agentexec.db.clock import utc_now
    from agentexec.db.urls import safe_url
    from agentexec.schema import migrate, partitioning

    engine = ax.get_engine()
    chosen = partitioning.check_interval(engine, interval)
    migrate.migrate_to(engine)
    partitioning.partition(engine, chosen, utc_now())
    typer.echo(f"{safe_url(engine.url)} is at revision head, with {chosen} partitions.")

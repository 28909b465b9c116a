"""`agentexec rotate-keys`: encrypt what is stored already."""

from __future__ import annotations

import typer

import agentexec as ax
from agentexec.errors import UsageError


def run() -> None:
    """Encrypt every stored value with the first key of AGENTEXEC_ENCRYPTION_KEYS.

    Values of other keys, and values that are not encrypted, are written again, in batches, while workers run. Run it once all
    processes have the key; afterwards the other keys are needed no more.
    """
    # Imported on use: the other commands start faster without SQLAlchemy.
    from agentexec.db.errors import translating_db_errors
    from agentexec.payloads.rotation import rotate
    from agentexec.payloads.sealing import first_fingerprint
    from agentexec.schema.tables import Base

    engine = ax.get_engine()
    name = first_fingerprint()
    if name is None:
        raise UsageError("There are no keys; set AGENTEXEC_ENCRYPTION_KEYS as in every other process.")
    counts: dict[str, int] = {}
    with translating_db_errors(engine):
        for column, encrypted in rotate(engine, Base.metadata, name):
            counts[column] = counts.get(column, 0) + encrypted
    for column, count in counts.items():
        typer.echo(f"{column}: {count}")
    typer.echo(f"Encrypted {sum(counts.values())} value(s) with the key {name}.")

"""The deployment that values in a payload store belong to: several may share one store, each with a folder of its own."""

from __future__ import annotations

import secrets

from sqlalchemy import Engine, column, insert, select, table
from sqlalchemy.exc import IntegrityError

from agentexec.config import CONF
from agentexec.db.transactions import looking_up, writing
from agentexec.errors import UnavailableError

META = table(f"{CONF.table_prefix}meta", column("name"), column("value"))

NAME = "payload_deployment"
"""Name of the row in `meta` that has the id."""


class Deployment:
    """The id of the deployment, read once from its database, which gets one if it has none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._id: str | None = None

    @property
    def id(self) -> str:
        """The id. Blocks on first use; raises UnavailableError, SchemaError."""
        if self._id is None:
            self._id = _read(self._engine) or _make(self._engine)
        return self._id

    def close(self) -> None:
        """Do nothing: it holds no resource."""


def _read(engine: Engine) -> str | None:
    with looking_up(engine) as connection:
        return connection.execute(select(META.c.value).where(META.c.name == NAME)).scalar()


def _make(engine: Engine) -> str:
    made = secrets.token_hex(8)
    try:
        with writing(engine) as connection:
            connection.execute(insert(META).values(name=NAME, value=made))
    except IntegrityError:  # another process was quicker
        found = _read(engine)
        if found is None:
            raise UnavailableError("The id of the deployment could not be read; try again.") from None
        return found
    return made

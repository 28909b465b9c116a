"""The declarative base of all tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import DDL, Connection, Engine, MetaData, event
from sqlalchemy.orm import DeclarativeBase

from agentexec.db.migration_lock import hold_migration_lock, migration_lock


class LockedMetaData(MetaData):
    """Tables that are made under the lock of the migrations, so that several processes may make them at once."""

    def create_all(self, bind: Any, *args: Any, **options: Any) -> None:
        """Create the tables that do not exist yet, as `MetaData.create_all` does; other processes wait."""
        if isinstance(bind, Engine):
            with migration_lock(bind) as connection:
                super().create_all(connection, *args, **options)
        elif isinstance(bind, Connection):
            with hold_migration_lock(bind):
                super().create_all(bind, *args, **options)
        else:
            super().create_all(bind, *args, **options)


class Base(DeclarativeBase):
    """Declarative base of every agentexec table: `ax.Base.metadata.create_all(engine)` creates them."""

    metadata = LockedMetaData()


def set_storage(model: type[Base], parameters: Mapping[str, object]) -> None:
    """Set storage parameters of a model's table on PostgreSQL when it is made.

    `Table` takes them itself only since SQLAlchemy 2.1.
    """
    pairs = ", ".join(f"{name} = {value}" for name, value in parameters.items())
    change = DDL(f"ALTER TABLE %(fullname)s SET ({pairs})").execute_if(dialect="postgresql")
    event.listen(model.__table__, "after_create", change)

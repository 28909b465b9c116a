"""The declarative base of all tables."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """Declarative base of every agentexec table: `ax.Base.metadata.create_all(engine)` creates them."""

"""The database, and the application's own table in it. agentexec's tables are in the same one."""

import os
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, Text, create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import agentexec as ax

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///agents.db"))
ax.configure(engine=engine)


class Base(DeclarativeBase):
    """Base of the application's own tables; agentexec's have `ax.Base`."""


class Report(Base):
    """Report that a person has approved."""

    __tablename__ = "report"

    id: Mapped[int] = mapped_column(primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(index=True)
    company: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    published_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


def get_db() -> Iterator[Session]:
    """Yield a session for one request."""
    with Session(engine) as db:
        yield db

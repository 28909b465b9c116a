"""Session of the commands that read or change the record."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import agentexec as ax

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@contextmanager
def session() -> Generator[Session]:
    """Open a Session on the configured database."""
    # Imported on use: the other commands start faster without SQLAlchemy.
    from sqlalchemy.orm import Session

    from agentexec.db.errors import translating_db_errors

    engine = ax.get_engine()
    with translating_db_errors(engine), Session(engine) as db:
        yield db

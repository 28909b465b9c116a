"""Scope of an MCP server: the tasks that its client may see, and the name under which it acts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agentexec.config import CONF
from agentexec.db.errors import translating_db_errors
from agentexec.runtime import RUNTIME
from agentexec.values.presentation import Bounds, Presenter

SHOWN = Bounds(total=20_000, text=5_000, entries=100)
"""Bounds of a context, a result or the arguments of a call."""


@dataclass(frozen=True)
class Scope:
    """Tasks that the client may see, and the name under which it acts.

    Args:
        by: Name that the log of a task shows, as in "Canceled by mcp alice."
        source: Where its decisions come from.
        labels: Labels that its tasks have; None for all tasks.
    """

    by: str
    source: str
    labels: dict[str, str] | None = None

    def presenter(self) -> Presenter:
        """Return what copies values without secrets, and within bounds."""
        return Presenter(CONF.secrets, SHOWN, "see `agentexec show --full`")

    @contextmanager
    def reading(self) -> Generator[Session]:
        """Open a session for queries; raises UnavailableError if the database cannot be reached."""
        engine = RUNTIME.engine
        with translating_db_errors(engine), Session(engine) as db:
            yield db

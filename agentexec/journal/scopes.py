"""The scope of the running code: its place in a task. Scripts and web processes ask for it without the journal's modules."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from agentexec.task import CURRENT_LEASE

if TYPE_CHECKING:
    from agentexec.journal.recorder import Scope

SCOPE: ContextVar[Scope | None] = ContextVar("agentexec_scope", default=None)
"""The scope of the running code; tasks and threads that it starts inherit it."""


def current_scope() -> Scope | None:
    """Return the place of the running code in its task; None in a script or a web process."""
    scope = SCOPE.get()
    return scope if scope is not None and CURRENT_LEASE.get() == scope.recorder.lease else None

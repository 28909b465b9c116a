"""Reference of the errors, generated from `agentexec.errors`."""

from __future__ import annotations

import agentexec as ax
from agentexec import errors
from agentexec.errors import AgentexecError
from docs.site.tables import sentence, table


def render() -> str:
    rows = [
        (f"`{_name(error)}`", str(error.exit_code), sentence(error), f"`{error.__bases__[0].__name__}`")
        for error in family(AgentexecError)
    ]
    return table(("error", "exit code", "meaning", "is a"), rows)


def family(error: type[AgentexecError]) -> list[type[AgentexecError]]:
    """Return an error and its subclasses in the order of the module; other modules may have more."""
    subclasses = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__base__ is error
    ]
    subclasses = list(dict.fromkeys(subclasses))  # some have two names
    return [error, *(member for subclass in subclasses for member in family(subclass))]


def _name(error: type[AgentexecError]) -> str:
    name = error.__name__
    return f"ax.{name}" if name in ax.__all__ else f"agentexec.errors.{name}"

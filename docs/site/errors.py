"""The reference of the errors, from `agentexec.errors`."""

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
    """An error and those that are kinds of it, as the module has them; other modules may have more."""
    below = [one for one in vars(errors).values() if isinstance(one, type) and one.__base__ is error]
    below = list(dict.fromkeys(below))  # some have two names
    return [error, *(one for kind in below for one in family(kind))]


def _name(error: type[AgentexecError]) -> str:
    name = error.__name__
    return f"ax.{name}" if name in ax.__all__ else f"agentexec.errors.{name}"

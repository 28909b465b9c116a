"""The family of errors."""

from __future__ import annotations

import re

from agentexec import errors
from agentexec.errors import AgentexecError

TABLE = {
    name: int(code)
    for name, code in re.findall(r"(\w+Error) +(\d)(?: |$)", errors.__doc__ or "", re.MULTILINE)
}
"""Exit codes as the module's docstring shows them."""


def test_the_modules_table_shows_every_error_with_its_exit_code() -> None:
    family = [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, AgentexecError)
    ]
    assert {error.__name__: error.exit_code for error in family} == TABLE

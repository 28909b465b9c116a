"""Names of options for errors: what was typed as `--budget` is an argument `budget=` in the message of a call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from typer.models import ArgumentInfo, OptionInfo

RENAMED = {"queue_name": "queue", "metadata_filter": "metadata"}
"""Arguments of calls that commands take under another name."""

_ARGUMENT = re.compile(r"""(?<![\w"'=$./-])([a-z][a-z_]*)=(?=[\s,.:;`"']|$)""")
"""An argument in a message, such as `budget=`. A pair like `tenant=acme`, or a text that begins in quotes, is the user's."""


def with_option_names(message: str, command: Callable[..., Any]) -> str:
    """Return the message of an error with the options and arguments of a command in the place of Python's arguments."""
    names = _names(command)

    def replace(found: re.Match[str]) -> str:
        name = names.get(RENAMED.get(found[1], found[1])) or names.get(found[1])
        if name is None:
            return found[0]
        value_follows = message[found.end() : found.end() + 1] in {'"', "'"}
        return f"{name} " if value_follows else name

    return _ARGUMENT.sub(replace, message)


def _names(command: Callable[..., Any]) -> dict[str, str]:
    """Return the names by which people give the parameters of a command, by the names that code may use for them."""
    names: dict[str, str] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        for info in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(info, ArgumentInfo):
                names.setdefault(parameter.name, info.metavar or parameter.name.upper())
            elif isinstance(info, OptionInfo):
                # In an annotation, typer takes the first name for the default until it reads the command.
                given = (info.default, *(info.param_decls or ()))
                declared = [text for text in given if isinstance(text, str) and text.startswith("--")]
                option = declared[0] if declared else f"--{parameter.name.replace('_', '-')}"
                names[parameter.name] = option
                names |= {text.removeprefix("--").replace("-", "_"): option for text in declared}
    return names

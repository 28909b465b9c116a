"""Reference of the command line, generated from the command line itself."""

from __future__ import annotations

import re
from typing import Any

import typer

from agentexec.cli.app import build_app
from docs.site.tables import table

BRACKETS = re.compile(r"\s*\[(?P<facts>[^\[\]]+)\]$")
"""Default and range of an option, at the end of its help text."""

TYPES = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER"}


def render() -> str:
    group: Any = typer.main.get_command(build_app())
    context = group.context_class(group, info_name="agentexec", **group.context_settings)
    parts = ["## agentexec\n", _usage(group, context), _options(group, context)]
    for name, command in group.commands.items():
        inner = group.context_class(command, info_name=name, parent=context)
        parts += [f"## agentexec {name}\n", _help(command), _usage(command, inner), _options(command, inner)]
    return "\n".join(parts)


def _help(command: Any) -> str:
    return re.sub(r"\n(?!\n)(?<!\n\n)", " ", command.help or "") + "\n"


def _usage(command: Any, context: Any) -> str:
    pieces = re.sub(r"[{}]", "", " ".join(command.collect_usage_pieces(context)))
    return f"```text\n{context.command_path} {pieces}\n```\n"


def _options(command: Any, context: Any) -> str:
    rows = [
        _option_row(parameter, record)
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) and not getattr(parameter, "hidden", False)
    ]
    return table(("option", "default", "meaning"), rows)


def _option_row(parameter: Any, record: tuple[str, str]) -> tuple[str, str, str]:
    name, meaning = record
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    facts: list[str] = []
    if found := BRACKETS.search(meaning):
        facts, meaning = found["facts"].split("; "), meaning[: found.start()]
    defaults = [fact.removeprefix("default: ") for fact in facts if fact.startswith("default: ")]
    others = [_fact(fact) for fact in facts if not fact.startswith("default: ")]
    return f"`{_name(name)}`", f"`{defaults[0]}`" if defaults else "", " ".join([meaning, *others])


def _name(option: str) -> str:
    return re.sub(r"<(\w+)[^>]*>", lambda found: TYPES.get(found[1], found[1].upper()), option)


def _fact(fact: str) -> str:
    if fact == "required":
        return "Required."
    low, _, high = fact.partition("<=x<=") if "<=x<=" in fact else (fact.removeprefix("x>="), "", "")
    return f"From {low} to {high}." if high else f"At least {low}."

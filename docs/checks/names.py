"""What the pages name is there: attributes of the package, variables of the environment, files of the repository."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import agentexec as ax
from agentexec.config import Settings, env_var_name
from docs.checks.pages import ROOT, Complaint, Page

VARIABLE = re.compile(r"\bAGENTEXEC_[A-Z0-9_]*[A-Z0-9]\b(?!_?\*)")
DOTTED = re.compile(r"^(?:await )?ax((?:\.\w+)+)")
FILE = re.compile(r"^(?:agentexec|bench|docs|examples|migrations|tests)/[\w./-]+$")
LAZY = ("agentexec", "agentexec.testing")
"""Modules whose names ty cannot tell: they are loaded on first use."""


def complaints(page: Page) -> Iterator[Complaint]:
    for number, line in enumerate(page.text.splitlines(), 1):
        for name in VARIABLE.findall(line):
            if name not in variables():
                yield page.complaint(number, f"there is no variable {name}")
    for span in page.spans:
        found = DOTTED.match(span.text)
        if found and (name := _unknown(found[1].split(".")[1:])):
            yield page.complaint(span.line, f"agentexec has no {name}")
        for word in span.text.split():
            # With `::` comes the name of a test.
            if FILE.match(path := word.partition("::")[0]) and not (ROOT / path).exists():
                yield page.complaint(span.line, f"there is no file {path}")


def unknown_attributes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and names of what code takes from agentexec and is not there; only where ty would not see it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = _chain(node)
            if names[:1] == ["ax"] and (name := _unknown(names[1:])):
                yield node.lineno, name
        elif isinstance(node, ast.ImportFrom) and node.module in LAZY:
            for alias in node.names:
                if not _has(importlib.import_module(node.module), alias.name):
                    yield node.lineno, f"{node.module}.{alias.name}"


def _chain(node: ast.expr) -> list[str]:
    """`ax.activity.list` as its names; empty if it does not begin with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := _chain(node.value)):
        return [*before, node.attr]
    return []


def _unknown(names: list[str]) -> str | None:
    """The first name that is not there, as `ax.` has it; None if all are, as far as modules go."""
    home: ModuleType = ax
    for at, name in enumerate(names):
        if not _has(home, name):
            return "ax." + ".".join(names[: at + 1])
        inner = vars(home).get(name) if home is not ax else _module(name)
        if not isinstance(inner, ModuleType):
            return None
        home = inner
    return None


def _module(name: str) -> ModuleType | None:
    # Everything else at the top is left alone: getting OpenAIRunner would import the whole Agents SDK.
    return (
        importlib.import_module(f"agentexec.{name}") if name in ("activity", "approvals", "testing") else None
    )


def _has(module: ModuleType, name: str) -> bool:
    return name in vars(module) or name in getattr(module, "__all__", ())


@cache
def variables() -> frozenset[str]:
    """Every variable that means something: the settings, and those that CONTRIBUTING.md lists."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(AGENTEXEC_\w+)` \|", page, re.MULTILINE)
    return frozenset((*map(env_var_name, Settings.model_fields), *listed))

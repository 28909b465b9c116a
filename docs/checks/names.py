"""Check of names: attributes of the package, environment variables and files of the repository exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import agentexec as ax
from agentexec.config import Settings, env_var_name
from docs.checks.pages import ROOT, Page, Problem

VARIABLE = re.compile(r"\bAGENTEXEC_[A-Z0-9_]*[A-Z0-9]\b(?!_?\*)")
DOTTED = re.compile(r"^(?:await )?ax((?:\.\w+)+)")
FILE = re.compile(r"^(?:agentexec|bench|docs|examples|migrations|tests)/[\w./-]+$")
LAZY = ("agentexec", "agentexec.testing")
"""Modules whose names ty does not know, because they are loaded on first use."""


def problems(page: Page) -> Iterator[Problem]:
    for number, line in enumerate(page.text.splitlines(), 1):
        for name in VARIABLE.findall(line):
            if name not in variables():
                yield page.problem(number, f"there is no variable {name}")
    for span in page.spans:
        found = DOTTED.match(span.text)
        if found and (name := _unknown(found[1].split(".")[1:])):
            yield page.problem(span.line, f"agentexec has no {name}")
        for word in span.text.split():
            # The name of a test follows `::`.
            if FILE.match(path := word.partition("::")[0]) and not (ROOT / path).exists():
                yield page.problem(span.line, f"there is no file {path}")


def unknown_attributes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of what code takes from agentexec but does not exist, where ty would not see it."""
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
    """Return `ax.activity.list` as a list of its names; empty if it does not start with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (names := _chain(node.value)):
        return [*names, node.attr]
    return []


def _unknown(names: list[str]) -> str | None:
    """Return the first name below `ax` that does not exist, or None; follows names through modules only."""
    module: ModuleType = ax
    for at, name in enumerate(names):
        if not _has(module, name):
            return "ax." + ".".join(names[: at + 1])
        inner = vars(module).get(name) if module is not ax else _module(name)
        if not isinstance(inner, ModuleType):
            return None
        module = inner
    return None


def _module(name: str) -> ModuleType | None:
    # No other top-level name is loaded: OpenAIRunner, for one, would import the whole Agents SDK.
    return getattr(ax, name) if name in ("activity", "approvals", "queues", "testing") else None


def _has(module: ModuleType, name: str) -> bool:
    return name in vars(module) or name in getattr(module, "__all__", ())


@cache
def variables() -> frozenset[str]:
    """Return every known variable: the settings, and the variables that CONTRIBUTING.md lists."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(AGENTEXEC_\w+)` \|", page, re.MULTILINE)
    return frozenset((*map(env_var_name, Settings.model_fields), *listed))

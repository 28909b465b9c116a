"""Checks of the pages: Python blocks pass the type checker, commands, settings and links exist, data parses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from docs.checks import commands, links, names, python_blocks, texts
from docs.checks.pages import ROOT, Page, Problem, read
from docs.site import llms

__all__ = ["ROOT", "Page", "Problem", "all_pages", "check", "read"]


def all_pages() -> list[Path]:
    """Return every page to check: those of the site, of the examples, and at the top of the repository."""
    found = (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/README.md"),
    )
    return sorted(found)


def check(files: Sequence[Path]) -> list[Problem]:
    """Return the problems of these pages in order."""
    pages = [read(file) for file in files]
    found = [
        problem
        for page in pages
        for find in (texts.problems, links.problems, commands.problems, names.problems, llms.problems)
        for problem in find(page)
    ]
    return sorted({*found, *python_blocks.problems(pages)})

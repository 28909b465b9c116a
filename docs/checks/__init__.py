"""Do the pages hold up? Their Python is type-checked, their commands, settings and links exist, their data parses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from docs.checks import commands, links, names, python_blocks, texts
from docs.checks.pages import ROOT, Complaint, Page, read

__all__ = ["ROOT", "Complaint", "Page", "all_pages", "check", "read"]


def all_pages() -> list[Path]:
    """Every page that is checked: of the site, of the examples, and those at the top of the repository."""
    found = (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/README.md"),
    )
    return sorted(found)


def check(files: Sequence[Path]) -> list[Complaint]:
    """All that is wrong with these pages, in their order."""
    pages = [read(file) for file in files]
    found = [
        complaint
        for page in pages
        for look in (texts.complaints, links.complaints, commands.complaints, names.complaints)
        for complaint in look(page)
    ]
    return sorted({*found, *python_blocks.complaints(pages)})

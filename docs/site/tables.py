"""Markdown tables and texts of the generated parts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; bars and line breaks in cells are escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def prose(documented: object) -> str:
    """Return a docstring as paragraphs."""
    return inspect.cleandoc(inspect.getdoc(documented) or "")


def sentence(documented: object) -> str:
    """Return the first paragraph of a docstring on one line."""
    return re.sub(r"\s+", " ", prose(documented).split("\n\n")[0])


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()

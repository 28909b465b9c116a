"""Markdown made by code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars and line breaks in cells do no harm."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def prose(documented: object) -> str:
    """A docstring as paragraphs."""
    return inspect.cleandoc(inspect.getdoc(documented) or "")


def sentence(documented: object) -> str:
    """The first paragraph of a docstring in one line."""
    return re.sub(r"\s+", " ", prose(documented).split("\n\n")[0])


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()

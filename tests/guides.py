"""The programs of the guides: their code blocks that begin with the name of a file."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

from tests.deployment import REPOSITORY

NAME = re.compile(r"# (\S+\.py)\n")


def write_files(page: str, folder: Path) -> None:
    """Write what the blocks of a page under docs/ hold into the files that they name; folders become packages."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    blocks = [token.content for token in MarkdownIt("commonmark").parse(text) if token.type == "fence"]
    for block in blocks:
        if name := NAME.match(block):
            file = folder / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            for parent in file.relative_to(folder).parents[:-1]:
                (folder / parent / "__init__.py").touch()
            file.write_text(block, encoding="utf-8")

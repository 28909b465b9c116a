"""Programs of the pages: code blocks that begin with the name of a file."""

from __future__ import annotations

from pathlib import Path

from docs.checks import ROOT, read


def write_files(page: str, folder: Path) -> None:
    """Write the blocks of a page under docs/ into the files that they name; folders become packages."""
    for block in read((ROOT / "docs" / page).resolve()).blocks:
        if block.file:
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            for parent in file.relative_to(folder).parents[:-1]:
                (folder / parent / "__init__.py").touch()
            file.write_text(block.text, encoding="utf-8")

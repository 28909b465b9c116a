"""The Mermaid diagrams of the pages, drawn for the light and the dark theme by Mermaid itself, in a browser.

A page keeps the source, which GitHub draws; the site shows the drawn files (`docs/site/hook.py`). Their names hold a
hash of the source, so a changed diagram has no picture until this has run again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
DRAWN = FOLDER / "diagrams"
DOCS = FOLDER.parent
PACKAGES = DOCS.parent / ".dev" / "pictures"
"""Folder of the locked npm packages."""

BLOCK = re.compile(r"^```mermaid\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)
THEMES = ("light", "dark")


def drawn_files(source: str) -> list[Path]:
    """Return the files of a diagram, one for each theme."""
    name = hashlib.sha256(source.encode()).hexdigest()[:12]
    return [DRAWN / f"{name}.{theme}.svg" for theme in THEMES]


def draw_all() -> None:
    """Draw the diagrams that have no files, and remove the files of those that are gone.

    Node, npm and a Chromium are needed: CHROMIUM names another one than /usr/bin/chromium.
    """
    sources = [
        found["source"]
        for page in sorted(DOCS.rglob("*.md"))
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
    DRAWN.mkdir(exist_ok=True)
    wanted = {file for source in sources for file in drawn_files(source)}
    for file in set(DRAWN.glob("*.svg")) - wanted:
        file.unlink()
    missing = {
        drawn_files(source)[0].name.split(".")[0]: source
        for source in sources
        if not all(file.exists() for file in drawn_files(source))
    }
    if missing:
        _install_packages()
        command = ["node", str(FOLDER / "diagrams.mjs"), str(DRAWN), str(PACKAGES)]
        subprocess.run(command, input=json.dumps(missing), text=True, check=True)


def _install_packages() -> None:
    stamp, lock = PACKAGES / "node_modules" / ".synced", (FOLDER / "package-lock.json").read_text()
    if stamp.exists() and stamp.read_text() == lock:
        return
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, PACKAGES / name)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=PACKAGES, check=True)
    stamp.write_text(lock)

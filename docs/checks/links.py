"""Check of links: relative links lead to existing files and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs.checks.pages import ROOT, Page, Problem, read
from docs.site import expanded


def problems(page: Page) -> Iterator[Problem]:
    for line, target in page.links:
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        file = page.path if not url.path else _locate(page.path, unquote(url.path))
        if not file.exists():
            yield page.problem(line, f"the link {target} leads nowhere")
        elif url.fragment and file.suffix == ".md" and url.fragment not in anchors(file):
            yield page.problem(line, f"{file.name} has no heading for the link {target}")


@cache
def anchors(file: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, including those of generated parts."""
    text = read(file).text
    documented = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    return frozenset((*Page(file, expanded(text)).anchors, *documented))


def _locate(page: Path, path: str) -> Path:
    return ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path

"""Relative links lead to files that are there, and to headings that they have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs.checks.pages import ROOT, Complaint, Page, read
from docs.site import expanded


def complaints(page: Page) -> Iterator[Complaint]:
    for line, target in page.links:
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        file = page.path if not url.path else _locate(page.path, unquote(url.path))
        if not file.exists():
            yield page.complaint(line, f"the link {target} leads nowhere")
        elif url.fragment and file.suffix == ".md" and url.fragment not in anchors(file):
            yield page.complaint(line, f"{file.name} has no heading for the link {target}")


@cache
def anchors(file: Path) -> frozenset[str]:
    """The names of a page's headings, also of those that are made when the site is built."""
    text = read(file).text
    documented = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    return frozenset((*Page(file, expanded(text)).anchors, *documented))


def _locate(page: Path, path: str) -> Path:
    return ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path

"""`llms.txt` and `llms-full.txt` of the site, for language models, by the convention of llmstxt.org.

Both are made from the navigation when the site is built. The site has each page as Markdown too, where their links lead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from docs.checks.pages import ROOT, Page, Problem, read

LONGEST = 300
"""Characters of a page's summary."""

LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


class Entry(NamedTuple):
    """Page of the navigation, by its path in the site."""

    section: str
    title: str
    uri: str


class _Loader(yaml.SafeLoader):
    """Loader that leaves out Python objects, which the navigation does not have."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def configuration() -> dict[str, Any]:
    """Return what mkdocs.yml says."""
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


def entries(nav: list[Any], section: str = "") -> Iterator[Entry]:
    """Yield the pages of a navigation in order."""
    for item in nav:
        for title, target in item.items():
            if isinstance(target, str):
                yield Entry(section, title, target)
            else:
                yield from entries(target, title)


def summary(page: Page) -> str:
    """Return the first sentence of a page below its title; empty if another block stands there."""
    kinds = [token.type for token in page.tokens[3:4]]
    if kinds != ["paragraph_open"]:
        return ""
    text = LINK.sub(r"\1", " ".join(page.tokens[4].content.split()))
    sentence = re.match(r".*?\.(?= |$)", text)
    return "" if sentence is None else sentence[0]


def index(config: dict[str, Any], source: Callable[[str], Path]) -> str:
    """Return `llms.txt`: the title, a summary, and a link with a sentence for each page.

    Args:
        config: The configuration of the site.
        source: Returns the file of a page in the site.
    """
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}"]
    section = None
    for entry in entries(config["nav"]):
        if entry.section != section:
            section = entry.section
            lines += ["", f"## {section or 'Overview'}", ""]
        lines.append(f"- [{entry.title}]({entry.uri}): {summary(read(source(entry.uri)))}")
    return "\n".join([*lines, ""])


def full(config: dict[str, Any], texts: dict[str, str]) -> str:
    """Return `llms-full.txt`: the text of every page, in the order of the navigation."""
    pages = [texts[entry.uri].strip() for entry in entries(config["nav"])]
    return "\n\n".join([f"# {config['site_name']}", f"> {config['site_description']}", *pages]) + "\n"


def problems(page: Page) -> Iterator[Problem]:
    """Yield a problem for a page of the navigation without a sentence that llms.txt can show."""
    if page.path.parent.is_relative_to(ROOT / "docs") and not 0 < len(summary(page)) <= LONGEST:
        yield page.problem(
            3, f"the title is not followed by a sentence of at most {LONGEST} characters, for llms.txt"
        )

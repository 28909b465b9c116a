"""Page as the checks see it: blocks, code spans, links and headings, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]

WITH = re.compile(r"<!--\s*with:\s*(?P<code>.*?)\s*-->\s*", re.DOTALL)
"""Hidden code: names that the blocks after it need and the reader does not."""

FILE = re.compile(r"# (?P<name>[\w./-]+\.py)\b")
TITLE = re.compile(r'\btitle="(?P<name>[^"]+)"')


class Problem(NamedTuple):
    """Problem on a line of a page."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        name = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{name}:{self.line}: {self.text}"


class Block(NamedTuple):
    """Block of code. `line`: line of the page on which its text begins. `hidden`: it is in a comment of the page."""

    line: int
    language: str
    text: str
    file: str | None = None
    hidden: bool = False


class Span(NamedTuple):
    """Piece of code within a line of text."""

    line: int
    text: str


class Link(NamedTuple):
    """Target of a link or picture."""

    line: int
    target: str


class Page:
    """Page of Markdown, parsed once."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        # "gfm-like" would also turn bare URLs into links, which needs one more package.
        self.tokens = MarkdownIt("commonmark").enable("table").parse(text)

    def problem(self, line: int, text: str) -> Problem:
        """Return a problem on a line of this page."""
        return Problem(self.path, line, text)

    @cached_property
    def blocks(self) -> list[Block]:
        """Fenced blocks, indented blocks and hidden code, in order."""
        return list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        for token in self.tokens:
            line = first_line(token)
            if token.type == "fence":
                info = token.info.split()
                language = info[0].lower() if info else ""
                title = TITLE.search(token.info)
                file = (title or FILE.match(token.content)) if language in ("python", "py") else None
                yield Block(line + 1, language, token.content, file and file["name"])
            elif token.type == "code_block":
                yield Block(line, "", token.content)
            elif token.type == "html_block" and (found := WITH.match(token.content)):
                code = found["code"] + "\n"
                file = FILE.match(code)
                line += token.content[: found.start("code")].count("\n")
                yield Block(line, "python", code, file and file["name"], hidden=True)

    @cached_property
    def spans(self) -> list[Span]:
        """Pieces of code within text, each with the first line of its paragraph."""
        return [
            Span(first_line(token), child.content)
            for token in self.tokens
            for child in token.children or ()
            if child.type == "code_inline"
        ]

    @cached_property
    def links(self) -> list[Link]:
        """Links and pictures."""
        return [
            Link(first_line(token), target)
            for token in self.tokens
            for child in token.children or ()
            if isinstance(target := child.attrs.get("href") or child.attrs.get("src"), str)
        ]

    @cached_property
    def anchors(self) -> frozenset[str]:
        """Anchors that GitHub gives to the headings."""
        names: list[str] = []
        previous: Token | None = None
        for token in self.tokens:
            if previous is not None and previous.type == "heading_open":
                text = "".join(child.content for child in token.children or ())
                name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                copies = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", known) is not None for known in names)
                names.append(f"{name}-{copies}" if copies else name)
            previous = token
        return frozenset(names)


def first_line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 1


@cache
def read(file: Path) -> Page:
    """Return the page in a file."""
    return Page(file, file.read_text(encoding="utf-8"))

"""Check that README.md and docs/*.md hold up: their Python blocks compile and their relative links resolve.

python docs/check.py [FILE ...]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]

# Examples may await at the top level, as in the asyncio REPL.
COMPILE_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def main(arguments: list[str]) -> int:
    files = [Path(name).resolve() for name in arguments] or [
        ROOT / "README.md",
        *sorted(ROOT.glob("docs/**/*.md")),
    ]
    complaints = [complaint for file in files for complaint in check(file)]
    sys.stderr.writelines(f"{complaint}\n" for complaint in complaints)
    sys.stdout.write(f"{len(files)} files checked, {len(complaints)} complaints\n")
    return 1 if complaints else 0


def check(file: Path) -> Iterator[str]:
    name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    for line, complaint in (*bad_blocks(file), *bad_links(file)):
        yield f"{name}:{line}: {complaint}"


def bad_blocks(file: Path) -> Iterator[tuple[int, str]]:
    for token in tokens(file):
        if token.type == "fence" and token.info.split()[:1] in (["python"], ["py"]):
            try:
                compile(token.content, str(file), "exec", COMPILE_FLAGS, dont_inherit=True)
            except SyntaxError as error:
                yield (
                    first_line(token) + (error.lineno or 1),
                    f"the Python block does not compile: {error.msg}",
                )


def bad_links(file: Path) -> Iterator[tuple[int, str]]:
    for line, target in links(file):
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        page = file if not url.path else locate(file, unquote(url.path))
        if not page.exists():
            yield line, f"the link {target} leads nowhere"
        elif url.fragment and page.suffix == ".md" and url.fragment not in anchors(page):
            yield line, f"{page.name} has no heading for the link {target}"


def locate(file: Path, path: str) -> Path:
    return ROOT / path.lstrip("/") if path.startswith("/") else file.parent / path


def links(file: Path) -> Iterator[tuple[int, str]]:
    for token in tokens(file):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if isinstance(target, str):
                yield first_line(token), target


@cache
def anchors(file: Path) -> frozenset[str]:
    """The names GitHub gives to the headings of a page."""
    names: list[str] = []
    previous: Token | None = None
    for token in tokens(file):
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
def tokens(file: Path) -> list[Token]:
    # "gfm-like" would also turn bare URLs into links, which needs one more package.
    return MarkdownIt("commonmark").enable("table").parse(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

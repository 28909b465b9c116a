"""Checks of the sources that ruff does not make; `python -m tools.source_checks` runs them, and `./dev lint` does.

- **opening**: no docstring opens with a question word or a pronoun. Its first line says what a function does, or defines a thing.
- **name**: no variable is called `one` or `those`.
- **phrase**: no name or phrase that the project has replaced by a plainer one comes back.
- **length**: no module of the package has more than 400 lines.
- **complexity**: no function of the package is above 12, as `radon cc` counts.
- **modules**: at most 12 modules stand directly in `agentexec/`.

Prints one line for each finding, as `path:line: check: text`. Exit codes: 0 nothing was found, 1 something was.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from radon.complexity import cc_visit
from radon.visitors import Class

ROOT = Path(__file__).parents[1]
PACKAGE = "agentexec"

SOURCES = (PACKAGE, "tests", "bench", "docs", "examples", "tools", ".ci", "migrations")
"""Folders whose docstrings, names and phrases are checked."""

PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "dev")
"""Files at the top of the repository whose phrases are checked."""

TEXTS = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ""}
"""Suffixes of the files whose phrases are checked."""

EXEMPT = {"tools/source_checks.py", "tests/unit/tools/test_source_checks.py"}
"""Files that must quote what is forbidden."""

MAX_LINES = 400
MAX_COMPLEXITY = 12
MAX_MODULES = 12

OPENINGS = {"what", "how", "who", "whose", "whom", "where", "whether", "that", "which", "why"}
PRONOUNS = {"one", "those"}

NAMES = (
    "_GET_ON",
    "_helps",
    "_said",
    "_stirred",
    "again_after_deadlock",
    "at_once",
    "at_rest",
    "complain",
    "goes_on",
    "hasten",
    "hastened",
    "hurry",
    "led_by_the_rarest",
    "outages_named",
    "resting",
)
"""Whole identifiers that were replaced."""

PHRASES = (
    r"how manieth",
    r"\banew\b",
    r"\bwherefore\b",
    r"by somebody's leave",
    r"which the fewest meet",
    r"find the rarest",
    r"settings that were made",
    r"asks for something that cannot be",
    r"is taken, and gone",
    r"\bit is there now\b",
    r"what is too much",
    r"behind the `?next_cursor",
    r"the way of a task",
    r"numbers of tasks of a queue",
    r"no `?exception`?: whatever",
    r"(?<!there )\bis no\b(?! (?:longer|more|less)\b)",
    r"\bclass (?:Made|Orders|Signals|Wish)\b",
    r"\bdef (?:become|complain|among)\b",
    r"\bwriting\(finding=",
    r"\bcalls\.Made\b",
    r"\b(?:deeds|printed)\.py\b",
    r"\bagentexec/signals\b",
    r"\bworker/(?:health|heartbeat)\.py\b",
)
"""Patterns of phrases that were replaced, in lower and upper case. A space stands for any break between words."""

GAP = r"(?:\s|[#>*])+"
"""A break between two words of a phrase: also one between two lines of a comment or a quotation."""


class Finding(NamedTuple):
    """Something that a check does not accept."""

    path: str
    line: int
    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.check}: {self.text}"


def check_openings(path: str, tree: ast.AST) -> Iterator[Finding]:
    """Find docstrings, of attributes too, whose first word is a question word or a pronoun."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                word = re.match(r"\W*(\w+)", text) if isinstance(text, str) else None
                if word and word[1].lower() in OPENINGS:
                    yield Finding(path, statement.lineno, "opening", f'"{text.strip().splitlines()[0][:60]}"')


def check_names(path: str, tree: ast.AST) -> Iterator[Finding]:
    """Find variables and parameters whose name is a pronoun."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in PRONOUNS:
            yield Finding(path, node.lineno, "name", f"a variable is called {node.id}")
        elif isinstance(node, ast.arg) and node.arg in PRONOUNS:
            yield Finding(path, node.lineno, "name", f"a parameter is called {node.arg}")


def check_phrases(path: str, text: str) -> Iterator[Finding]:
    """Find names and phrases that were replaced."""
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Finding(path, line, "phrase", f'"{" ".join(match[0].split())}"')


_PATTERNS = [
    *(re.compile(rf"(?<![\w-]){name}(?![\w-])") for name in NAMES),
    *(re.compile(re.sub(r"(?<!\(\?<!there) ", lambda _: GAP, pattern), re.IGNORECASE) for pattern in PHRASES),
]


def check_length(path: str, text: str) -> Iterator[Finding]:
    """Find a module with too many lines."""
    lines = len(text.splitlines())
    if lines > MAX_LINES:
        yield Finding(path, 1, "length", f"{lines} lines, at most {MAX_LINES}")


def check_complexity(path: str, text: str) -> Iterator[Finding]:
    """Find functions and methods that are too complex."""
    for block in cc_visit(text):
        if not isinstance(block, Class) and block.complexity > MAX_COMPLEXITY:
            yield Finding(
                path,
                block.lineno,
                "complexity",
                f"{block.fullname} is {block.complexity}, at most {MAX_COMPLEXITY}",
            )


def check_modules(paths: Iterable[str]) -> Iterator[Finding]:
    """Find too many modules directly in the package."""
    modules = sorted(path for path in paths if re.fullmatch(rf"{PACKAGE}/\w+\.py", path))
    if len(modules) > MAX_MODULES:
        yield Finding(PACKAGE, 1, "modules", f"{len(modules)} modules, at most {MAX_MODULES}")


def check_file(path: str, text: str) -> Iterator[Finding]:
    """Make every check that concerns one file."""
    if path not in EXEMPT:
        yield from check_phrases(path, text)
    if path.endswith(".py"):
        tree = ast.parse(text)
        yield from check_openings(path, tree)
        yield from check_names(path, tree)
        if path.startswith(f"{PACKAGE}/"):
            yield from check_length(path, text)
            yield from check_complexity(path, text)


def source_paths() -> list[str]:
    """Return the files that are checked, relative to the repository: those that Git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *SOURCES, *PAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - fixed arguments
    return [path for path in listed.splitlines() if Path(path).suffix in TEXTS and (ROOT / path).is_file()]


def check_sources(paths: Sequence[str]) -> list[Finding]:
    """Make every check of these files."""
    found = [*check_modules(paths)]
    for path in paths:
        found += check_file(path, (ROOT / path).read_text(encoding="utf-8"))
    return sorted(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.source_checks", description="Check the sources.")
    parser.add_argument("folders", nargs="*", help="only files below these folders")
    parser.add_argument("--count", action="store_true", help="count the findings of each folder and check")
    options = parser.parse_args(arguments)
    below = tuple(folder.rstrip("/") for folder in options.folders)
    paths = [
        path
        for path in source_paths()
        if not below or path in below or path.startswith(tuple(f"{folder}/" for folder in below))
    ]
    found = check_sources(paths)
    if options.count:
        counts = Counter((str(Path(finding.path).parent), finding.check) for finding in found)
        for (folder, check), number in sorted(counts.items()):
            print(f"{number:5} {check:10} {folder}")
    else:
        for finding in found:
            print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

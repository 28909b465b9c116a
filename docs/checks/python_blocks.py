"""Check of Python blocks: they compile, and ty accepts them against the real package.

The blocks of a page form one module, in which each line has the number that it has on the page. A block that begins
with a comment like `# worker.py` is a file of its own, from which the other blocks of the page can import.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from docs.checks.names import unknown_attributes
from docs.checks.pages import ROOT, Block, Page, Problem

# Examples may await at the top level, as in the asyncio REPL.
COMPILE_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

AT_TOP_LEVEL = re.compile(r"error\[invalid-syntax\] .*outside of an asynchronous function")
"""Error of ty about such an await; an await that is really wrong does not compile."""

DIAGNOSTIC = re.compile(
    r"(?P<file>[^:]+):(?P<line>\d+):\d+: (?:error|warning)\[(?P<rule>[\w-]+)\] (?P<text>.*)"
)
LENIENT = re.compile(
    "invalid-implicit-return-in-function-with-stub-body"  # a body of `...` stands for code that does not matter
    "|no attribute `objects`"  # Django adds it when it creates the class
)
"""Errors of ty about things that examples may do."""

FUTURE = "from __future__ import annotations"
MODULE = "page"


def problems(pages: Sequence[Page]) -> Iterator[Problem]:
    compiling = []
    for page in pages:
        broken = list(_broken(page))
        yield from broken or _unknown(page)
        if python(page) and not broken:
            compiling.append(page)
    if compiling:
        yield from _type_errors(compiling)


def python(page: Page) -> list[Block]:
    """Return the Python blocks of a page, including hidden code."""
    return [block for block in page.blocks if block.language in ("python", "py")]


def _broken(page: Page) -> Iterator[Problem]:
    for block in python(page):
        try:
            compile(block.text, str(page.path), "exec", COMPILE_FLAGS, dont_inherit=True)
        except SyntaxError as error:
            line = block.line + (error.lineno or 1) - 1
            yield page.problem(line, f"the Python block does not compile: {error.msg}")


def _unknown(page: Page) -> Iterator[Problem]:
    for block in python(page):
        for line, name in unknown_attributes(ast.parse(block.text)):
            yield page.problem(block.line + line - 1, f"agentexec has no {name}")


def _type_errors(pages: Sequence[Page]) -> Iterator[Problem]:
    with tempfile.TemporaryDirectory(prefix="agentexec-docs-") as folder:
        homes = {_name(page): page for page in pages}
        for name, page in homes.items():
            _write(Path(folder) / name, page)
        command = [sys.executable, "-m", "ty", "check", "--project", folder, "--python", sys.prefix]
        command += ["--output-format", "concise", "--color", "never", "--exit-zero", folder]
        output = subprocess.run(command, capture_output=True, text=True, check=False)
        if output.returncode:
            raise RuntimeError(f"ty ended with {output.returncode}: {output.stderr.strip()}")
        for line in output.stdout.splitlines():
            found = DIAGNOSTIC.match(line)
            if found and not LENIENT.search(line) and not AT_TOP_LEVEL.search(line):
                home = Path(found["file"]).resolve().relative_to(Path(folder).resolve()).parts[0]
                text = found["text"].replace(f"{home}.", "")
                yield homes[home].problem(int(found["line"]), f"{text} ({found['rule']})")


def _name(page: Page) -> str:
    path = page.path.relative_to(ROOT) if page.path.is_relative_to(ROOT) else page.path
    return re.sub(r"\W+", "_", str(path.with_suffix(""))).strip("_")


def _write(folder: Path, page: Page) -> None:
    """Write the modules of a page. Every line keeps its number, so that errors of ty name lines of the page."""
    modules: dict[str, dict[int, str]] = defaultdict(dict)
    for block in python(page):
        text = _with_values(block.text) if block.hidden else block.text
        lines = enumerate(text.splitlines(), block.line)
        if block.file is None:
            modules[MODULE].update(lines)
            continue
        file = PurePosixPath(block.file)
        modules[str(file.with_suffix(""))].update(lines)
        # The next blocks of the page may use the names that the file defines.
        modules[MODULE][block.line] = f"from .{'.'.join(file.with_suffix('').parts)} import *"
    names = {name.replace("/", ".") for name in modules if name != MODULE}
    for name, lines in modules.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        dots = "." * (name.count("/") + 1)
        text = [_local_import(lines.get(number, ""), names, dots) for number in range(1, max(lines) + 1)]
        if FUTURE in text:
            text = [line if line != FUTURE else "" for line in text]
            text[0] = f"{FUTURE}; {text[0]}".rstrip("; ")
        file.write_text("\n".join(text) + "\n", encoding="utf-8")


def _with_values(code: str) -> str:
    """Return hidden code in which each name that is only declared, like `agent: Agent`, has some value."""
    return re.sub(r"^(\w+: [^=\n]+)$", r'\1 = eval("")', code, flags=re.MULTILINE)


def _local_import(line: str, names: set[str], dots: str) -> str:
    """Return a line in which an import of another file of the page is relative, so that ty finds the file."""
    found = re.match(r"(?P<indent>\s*)(?P<how>from|import) (?P<module>[\w.]+)(?P<rest>.*)", line)
    if found is None or found["module"] not in names:
        return line
    if found["how"] == "from":
        return f"{found['indent']}from {dots}{found['module']}{found['rest']}"
    return f"{found['indent']}from {dots} import {found['module']}{found['rest']}"

"""The Python of the pages compiles, and ty finds no fault in it against the real package.

The blocks of a page are one module, in which each block's lines stand where they stand on the page. A block that begins
with a comment like `# worker.py` is a file of its own, from which the page's other blocks can import.
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
from docs.checks.pages import ROOT, Block, Complaint, Page

# Examples may await at the top level, as in the asyncio REPL.
COMPILE_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

AT_TOP_LEVEL = re.compile(r"error\[invalid-syntax\] .*outside of an asynchronous function")
"""What ty says of such an await; where it is really wrong, the block does not compile."""

DIAGNOSTIC = re.compile(
    r"(?P<file>[^:]+):(?P<line>\d+):\d+: (?:error|warning)\[(?P<rule>[\w-]+)\] (?P<text>.*)"
)
LENIENT = re.compile(
    "invalid-implicit-return-in-function-with-stub-body"  # a body of `...` leaves out what does not matter
    "|no attribute `objects`"  # Django makes it when the class is made
)
"""What ty says and examples may do."""

FUTURE = "from __future__ import annotations"
MODULE = "page"


def complaints(pages: Sequence[Page]) -> Iterator[Complaint]:
    sound = []
    for page in pages:
        broken = list(_broken(page))
        yield from broken or _unknown(page)
        if python(page) and not broken:
            sound.append(page)
    if sound:
        yield from _mistyped(sound)


def python(page: Page) -> list[Block]:
    """The page's Python, hidden code included."""
    return [block for block in page.blocks if block.language in ("python", "py")]


def _broken(page: Page) -> Iterator[Complaint]:
    for block in python(page):
        try:
            compile(block.text, str(page.path), "exec", COMPILE_FLAGS, dont_inherit=True)
        except SyntaxError as error:
            line = block.line + (error.lineno or 1) - 1
            yield page.complaint(line, f"the Python block does not compile: {error.msg}")


def _unknown(page: Page) -> Iterator[Complaint]:
    for block in python(page):
        for line, name in unknown_attributes(ast.parse(block.text)):
            yield page.complaint(block.line + line - 1, f"agentexec has no {name}")


def _mistyped(pages: Sequence[Page]) -> Iterator[Complaint]:
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
                yield homes[home].complaint(int(found["line"]), f"{text} ({found['rule']})")


def _name(page: Page) -> str:
    path = page.path.relative_to(ROOT) if page.path.is_relative_to(ROOT) else page.path
    return re.sub(r"\W+", "_", str(path.with_suffix(""))).strip("_")


def _write(folder: Path, page: Page) -> None:
    """The page's modules. Every line of code keeps its number, so what ty says of it is said of the page."""
    modules: dict[str, dict[int, str]] = defaultdict(dict)
    for block in python(page):
        text = _given(block.text) if block.hidden else block.text
        lines = enumerate(text.splitlines(), block.line)
        if block.file is None:
            modules[MODULE].update(lines)
            continue
        file = PurePosixPath(block.file)
        modules[str(file.with_suffix(""))].update(lines)
        # What the file defines, the page's next blocks may use.
        modules[MODULE][block.line] = f"from .{'.'.join(file.with_suffix('').parts)} import *"
    names = {name.replace("/", ".") for name in modules if name != MODULE}
    for name, lines in modules.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        dots = "." * (name.count("/") + 1)
        text = [_near(lines.get(number, ""), names, dots) for number in range(1, max(lines) + 1)]
        if FUTURE in text:
            text = [line if line != FUTURE else "" for line in text]
            text[0] = f"{FUTURE}; {text[0]}".rstrip("; ")
        file.write_text("\n".join(text) + "\n", encoding="utf-8")


def _given(code: str) -> str:
    """Hidden code in which a name that is only declared, like `agent: Agent`, has a value, whatever it is."""
    return re.sub(r"^(\w+: [^=\n]+)$", r'\1 = eval("")', code, flags=re.MULTILINE)


def _near(line: str, names: set[str], dots: str) -> str:
    """An import of another file of the page, so that ty finds it beside this one."""
    found = re.match(r"(?P<indent>\s*)(?P<how>from|import) (?P<module>[\w.]+)(?P<rest>.*)", line)
    if found is None or found["module"] not in names:
        return line
    if found["how"] == "from":
        return f"{found['indent']}from {dots}{found['module']}{found['rest']}"
    return f"{found['indent']}from {dots} import {found['module']}{found['rest']}"

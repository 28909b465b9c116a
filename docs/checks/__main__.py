"""Command `python -m docs.checks [FILE ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.checks import all_pages, check


def main(arguments: list[str]) -> int:
    files = [Path(name).resolve() for name in arguments] or all_pages()
    problems = check(files)
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    sys.stdout.write(f"{len(files)} pages checked, {len(problems)} problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

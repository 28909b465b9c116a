"""Clients of other front ends: `@ag-ui/client` and `ai`, run by Node against an application with a real worker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.npm import install

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "docs" / "guides" / "other-front-ends.md"


class FrontEnd:
    """Node program that prints a line of JSON whenever it shows something new."""

    def __init__(self, name: str, *arguments: str) -> None:
        home = install(HERE)
        shutil.copy(HERE / f"{name}.mjs", home / f"{name}.mjs")
        # The guide's own code, so that it is tested.
        (home / "resumingFetch.mjs").write_text(_block(GUIDE.read_text(), "// resumingFetch.mjs"))
        self._process = subprocess.Popen(
            ["node", f"{name}.mjs", *arguments],
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.shown: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def now(self) -> dict[str, Any]:
        """Content of the page at this moment."""
        return self.shown[-1] if self.shown else {}

    def finish(self, timeout: float = 30) -> dict[str, Any]:
        """Wait for the program's end, and return what it shows then."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"The front end did not end; it shows {self.now}") from None
        self._reader.join(10)
        assert self._process.stderr is not None
        errors = self._process.stderr.read()
        assert code == 0, errors
        assert "Error" not in errors, errors
        return self.now

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.shown.append(json.loads(line))


def _block(page: str, first_line: str) -> str:
    match = re.search(rf"```js\n({re.escape(first_line)}\n.*?)```", page, re.DOTALL)
    assert match, f"{GUIDE.name} has no block that begins with {first_line}"
    return match[1]

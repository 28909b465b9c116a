"""Every page passes the checks, and the type checker sees all its blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.checks import all_pages, check


def problems_of(tmp_path: Path, text: str) -> list[str]:
    """Return the problems that the checks find on a page."""
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n" + text, encoding="utf-8")
    return [f"{problem.line}: {problem.text}" for problem in check([page])]


@pytest.mark.thorough
def test_every_page_passes_the_checks() -> None:
    assert not [str(problem) for problem in check(all_pages())]


def test_types_are_checked_over_the_blocks_and_files_of_a_page(tmp_path: Path) -> None:
    """Errors name lines of the page; a file is checked by itself, and the page sees the names that it defines."""
    text = """\
<!-- with:
import agentexec as ax
names: list[str]
-->
```python
reports = await ax.map(3, names)
ax.enqueue_sync(1)
```

<!-- with:
# myapp/models.py
from pydantic import BaseModel
class Company(BaseModel):
    name: str
-->
```python
# myapp/worker.py
from __future__ import annotations

from myapp.models import Company

def first() -> Company:
    return Company(name=1)

unknown
```

```python
async for done in ax.as_completed(reports):
    done.reslt()
first().name.nothing
from myapp.worker import second
```
"""
    wanted = {
        8: "invalid-argument-type",
        9: "invalid-argument-type",
        25: "invalid-argument-type",
        27: "Name `unknown` used when not defined",
        32: "`Completed` has no attribute `reslt`",
        33: "`str` has no attribute `nothing`",
        34: "`myapp.worker` has no member `second`",
    }
    found = dict(line.split(": ", 1) for line in problems_of(tmp_path, text))
    assert list(found) == [str(line) for line in wanted]
    for line, words in wanted.items():
        assert words in found[str(line)]

"""The folders of the tests mirror those of the package."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "agentexec"


def test_every_package_folder_has_a_folder_of_tests() -> None:
    folders = {file.parent.relative_to(PACKAGE) for file in PACKAGE.rglob("__init__.py")}
    tested = {
        file.parent.relative_to(ROOT / "tests" / kind)
        for kind in ("unit", "integration")
        for file in (ROOT / "tests" / kind).rglob("test_*.py")
    }
    assert {str(folder) for folder in folders - tested} == set()

"""docs/architecture.md names every module of the package, and its layers are those that lint-imports checks."""

from __future__ import annotations

import re
import tomllib

from docs.checks import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_module_is_in_the_table_of_its_folder_and_every_row_is_a_module() -> None:
    package = ROOT / "agentexec"
    modules = {str(file.relative_to(package)) for file in package.rglob("*.py") if file.name != "__init__.py"}
    named = set()
    for folder, section in re.findall(r"^### `([\w/]+)/`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL):
        prefix = "" if folder == "agentexec" else f"{folder}/"
        named |= {prefix + name for name in re.findall(r"^\| `([\w/]+\.py)` \|", section, re.MULTILINE)}
    assert (sorted(modules - named), sorted(named - modules - {"__init__.py"})) == ([], [])


def test_the_layers_are_those_that_are_checked() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (contract,) = [
        contract
        for contract in tools["importlinter"]["contracts"]
        if contract["type"] == "layers" and contract["containers"] == ["agentexec"]
    ]
    shown = re.search(r"^## Layers\n.*?^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert shown and shown[1].splitlines() == contract["layers"]

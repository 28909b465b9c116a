"""The public names are what they say, in whatever order they are asked for."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import agentexec

MODULES = {"activity", "approvals", "testing"}


def test_no_public_name_is_hidden_by_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(agentexec.__path__)}
    assert modules & set(agentexec.__all__) == MODULES, "importing a module sets the package's attribute"


def test_every_name_is_there_also_after_all_modules_are_loaded() -> None:
    program = """
import pkgutil, types, importlib, agentexec as ax
for module in pkgutil.iter_modules(ax.__path__):
    if not module.name.startswith("__"):
        importlib.import_module(f"agentexec.{module.name}")
print([name for name in ax.__all__ if isinstance(getattr(ax, name), types.ModuleType)])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sorted(MODULES))

"""Folders that hold the user's code, and their place among everything that can be imported.

Python's own order (the current folder first) would let a file such as `json.py` or `redis.py` beside the user's module
replace what agentexec itself imports. Here the standard library and the packages that agentexec needs come first, then
these folders, then other packages.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from agentexec.worker.target import Target

REQUIREMENT = re.compile(r"[\w.-]+")
"""Name of the distribution at the start of a requirement."""


class UserFolders:
    """Finder of the modules in the user's folders, for `sys.meta_path`.

    Args:
        folders: Absolute paths, the first one first.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(folders)

    def install(self) -> None:
        """Make the folders importable in this process."""
        # Also at the end of the path, for the processes that `multiprocessing` starts, and for folders without __init__.py.
        sys.path += [folder for folder in self.folders if folder not in sys.path]
        if any(
            isinstance(finder, UserFolders) and finder.folders == self.folders for finder in sys.meta_path
        ):
            return
        finders: list[Any] = sys.meta_path
        finders.insert(finders.index(PathFinder) if PathFinder in finders else len(finders), self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of the user, as the import system asks for it."""
        if path is not None or self.owner(fullname) is not None:
            return None
        return self._find(fullname)

    def file_of(self, module: str) -> str | None:
        """Return the file of a module without importing anything: in these folders, else installed, or None."""
        top, *parts = module.split(".")
        spec = PathFinder.find_spec(top, self.folders) or importlib.util.find_spec(top)
        for part in parts:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
        return None if spec is None else spec.origin

    def owner(self, name: str) -> str | None:
        """Return who else has the name of one of the user's modules and comes first, or None.

        Args:
            name: Name without dots.
        """
        own = self._find(name)
        if own is None:
            return None
        if name in sys.stdlib_module_names:
            return "a module of the standard library"
        other = PathFinder.find_spec(name, [entry for entry in sys.path if entry not in self.folders])
        if other is None or other.origin in (None, own.origin) or name not in self._needed:
            return None
        return f"a package that agentexec needs, {other.origin}"

    def hidden_by_name(self, error: BaseException) -> str | None:
        """Return a sentence if an error comes from a file of the user that is not imported because of its name."""
        name = getattr(error, "name", None) if isinstance(error, ImportError) else None
        if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
            name = error.obj.__name__
        top = (name or "").partition(".")[0]
        owner = self.owner(top) if top else None
        return None if owner is None else self.complaint(top, owner)

    def complaint(self, name: str, owner: str) -> str:
        """Return the sentence about a module of the user whose name is taken."""
        return f"{self.file_of(name)} has the name of {owner}; rename it."

    @cached_property
    def _needed(self) -> set[str]:
        # Reading what is installed takes tenths of a second, so only where a name exists twice.
        return _needed_packages()

    def _find(self, name: str) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, self.folders)
        # A folder without __init__.py hides nothing: anything else of its name comes first, as everywhere in Python.
        return None if spec is None or spec.origin is None else spec


def file_of(target: Target) -> str | None:
    """Return the file of a target's module without importing it, or None if there is none."""
    if target.module.endswith(".py"):
        return target.module
    with contextlib.suppress(ImportError, ValueError):  # the name is none, or was loaded by other means
        return UserFolders(target.folders).file_of(target.module)
    return None


def _needed_packages() -> set[str]:
    """Return the names of the packages, for `import`, of all distributions that agentexec needs."""
    packages: set[str] = set()
    seen: set[str] = set()
    pending = ["agentexec"]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or an extra that is not installed
        packages |= {file.parts[0].removesuffix(".py") for file in distribution.files or ()}
        pending += [
            match[0]
            for text in distribution.requires or ()
            if (match := REQUIREMENT.match(text)) and (name == "agentexec" or "extra ==" not in text)
        ]
    return packages

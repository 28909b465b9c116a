"""The target of a worker: the place of the user's pool. Processes that load it use `loading.py`."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from agentexec.errors import ModuleLoadError


@dataclass(frozen=True, slots=True)
class Target:
    """Place of a pool: a module, by its dotted name or its file, and an attribute of it.

    `attribute` None means `pool`, or `create_pool()` if there is no `pool`. `path`, that of a running program, goes to the
    front of `sys.path`. `folders` hold the user's modules, and come after what agentexec needs.
    """

    module: str
    attribute: str | None = None
    path: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Target:
        """Parse `package.module[:attribute]` or `folder/file.py[:attribute]`, relative to the current folder."""
        module, _, attribute = text.strip().partition(":")
        if not module:
            raise ModuleLoadError(
                "Name the module that holds your pool, like `agentexec worker myapp.worker`."
            )
        if module.startswith(".") and not module.endswith(".py"):
            raise ModuleLoadError(
                f"{module} does not name a module; write it like myapp.worker or src/worker.py."
            )
        cwd = str(Path.cwd())
        if not module.endswith(".py"):
            return cls(module, attribute or None, folders=(cwd,))
        file = Path(module).resolve()
        return cls(str(file), attribute or None, folders=tuple(dict.fromkeys((str(file.parent), cwd))))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Target:
        """Return the target of which `to_dict` made the JSON values."""
        return cls(data["module"], data["attribute"], tuple(data["path"]), tuple(data["folders"]))

    @classmethod
    def from_pool(cls, pool: object) -> Target:
        """Find the place of a pool that the running program has made, for processes that import the program again."""
        main = sys.modules["__main__"]
        candidates = [main, *(module for name, module in list(sys.modules.items()) if name != "__main__")]
        for module in candidates:
            for name, value in list(vars(module).items()) if isinstance(module, ModuleType) else []:
                if value is pool:
                    return cls(
                        _importable_name(module), name, tuple(entry or str(Path.cwd()) for entry in sys.path)
                    )
        raise ModuleLoadError(
            "Worker processes must be able to import your pool. Keep it in a variable of a module, like "
            "`pool = ax.Pool()` at the top level, and call pool.run() from there."
        )

    def __str__(self) -> str:
        return self.module if self.attribute is None else f"{self.module}:{self.attribute}"

    def named_in(self, message: str) -> str:
        """Return a message in which `agentexec migrate` has the option that makes it use this target's database."""
        return message.replace("`agentexec migrate`", f"`agentexec migrate --app {shlex.quote(str(self))}`")

    def to_dict(self) -> dict[str, Any]:
        """Return the target as JSON values, to be sent to another process."""
        return asdict(self)


def _importable_name(module: ModuleType) -> str:
    if module.__name__ != "__main__":
        return module.__name__
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name and spec.name != "__main__":
        return spec.name.removesuffix(".__main__") if not spec.name.endswith(".__main__") else spec.name
    file = getattr(module, "__file__", None)
    if file is None:
        raise ModuleLoadError(
            "pool.run() and pool.start() need a program in a file, which a prompt or notebook does not have."
        )
    return os.path.realpath(file)

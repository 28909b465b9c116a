"""The target of a worker: the place of the user's pool, and how processes load it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from agentexec.errors import AgentexecError, ModuleLoadError
from agentexec.registry import Registry
from agentexec.worker.user_code import is_user_code
from agentexec.worker.user_folders import UserFolders


class HasRegistry(Protocol):
    """Part of a pool that a worker uses."""

    registry: Registry


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

    def file(self) -> str | None:
        """Return the file of the module without importing it, or None if there is none."""
        if self.module.endswith(".py"):
            return self.module
        with contextlib.suppress(ImportError, ValueError):  # the name is none, or was loaded by other means
            return UserFolders(self.folders).file_of(self.module)
        return None

    def named_in(self, message: str) -> str:
        """Return a message in which `agentexec migrate` has the option that makes it use this target's database."""
        return message.replace("`agentexec migrate`", f"`agentexec migrate --app {shlex.quote(str(self))}`")

    def to_dict(self) -> dict[str, Any]:
        """Return the target as JSON values, to be sent to another process."""
        return asdict(self)

    def load(self) -> HasRegistry:
        """Import the module and return its pool. Raises ModuleLoadError, which says what is wrong."""
        for entry in reversed(self.path):
            if entry in sys.path:
                sys.path.remove(entry)
            sys.path.insert(0, entry)
        if self.folders:
            UserFolders(self.folders).install()
        module = self._import()
        attribute = self.attribute
        if attribute is None:
            attribute = next((name for name in ("pool", "create_pool") if hasattr(module, name)), None)
            if attribute is None:
                raise ModuleLoadError(
                    f"{self.module} has neither `pool` nor `create_pool()`. Add `pool = ax.Pool()`, or name another "
                    f"attribute as {self.module}:ATTRIBUTE."
                )
        if not hasattr(module, attribute):
            raise ModuleLoadError(f"{self.module} has no attribute {attribute!r}.")
        value = getattr(module, attribute)
        if not isinstance(getattr(value, "registry", None), Registry) and callable(value):
            value = self._call(attribute, value)
        if not isinstance(getattr(value, "registry", None), Registry):
            raise ModuleLoadError(f"{self.module}:{attribute} is {type(value).__name__}, not an ax.Pool.")
        value.registry.complete()
        return value

    def _call(self, attribute: str, create_pool: Callable[[], Any]) -> Any:
        try:
            return create_pool()
        except AgentexecError:
            raise
        except (Exception, SystemExit) as error:
            raise ModuleLoadError(
                f"{self.module}:{attribute}() failed: {type(error).__name__}: {error}{_place(error)}."
            ) from error

    def _import(self) -> ModuleType:
        try:
            self._require_own_name()
            if self.module.endswith(".py"):
                return _import_file(Path(self.module))
            return importlib.import_module(self.module)
        except AgentexecError:
            raise
        except MissingFileError as error:
            raise ModuleLoadError(f"There is no file {self.module}.") from error
        except SyntaxError as error:
            raise ModuleLoadError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
        except ModuleNotFoundError as error:
            if error.name and (self.module == error.name or self.module.startswith(f"{error.name}.")):
                raise ModuleLoadError(
                    f"There is no module {self.module}. Run from the folder that holds it, or give a path like src/worker.py."
                ) from error
            raise self._failed_import(str(error), error) from error
        except (Exception, SystemExit) as error:
            # Any error that the user's module raises during its import is for its author to read.
            raise self._failed_import(f"{type(error).__name__}: {error}", error) from error

    def _require_own_name(self) -> None:
        """Raise ModuleLoadError if another module has the name of this one and comes first."""
        name = Path(self.module).stem if self.module.endswith(".py") else self.module.partition(".")[0]
        folders = UserFolders(self.folders)
        if (owner := folders.owner(name)) is not None:
            raise ModuleLoadError(folders.complaint(name, owner))

    def _failed_import(self, reason: str, error: BaseException) -> ModuleLoadError:
        hint = UserFolders(self.folders).hidden_by_name(error)
        if "no known parent package" in reason:
            file = Path(self.module)
            hint = f"Name the module of its package, like {file.parent.name}.{file.stem}, from the folder {file.parents[1]}."
        return ModuleLoadError(
            f"{self.module} cannot be imported: {reason}{_place(error)}.{f' {hint}' if hint else ''}"
        )


class MissingFileError(Exception):
    """The file that should hold the pool does not exist; a FileNotFoundError may come from the module itself."""


def _place(error: BaseException) -> str:
    """Return the line of the user's code that raised an error, in parentheses, or nothing if it is not known."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_user_code(frame.filename)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise MissingFileError(path)
    # The name is not "__main__", so that the program's `if __name__ == "__main__":` does not run in a worker.
    name = path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleLoadError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Registered under its name, so that its classes can be found (type hints, pickles of user libraries).
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


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

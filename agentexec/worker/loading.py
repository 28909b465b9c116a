"""Loading of a target: the import of the user's module, and the pool in it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from agentexec.errors import AgentexecError, ModuleLoadError
from agentexec.registry import Registry
from agentexec.worker.target import Target
from agentexec.worker.user_code import is_user_code
from agentexec.worker.user_folders import UserFolders


class HasRegistry(Protocol):
    """Part of a pool that a worker uses."""

    registry: Registry


def load(target: Target) -> HasRegistry:
    """Import the module and return its pool. Raises ModuleLoadError, which says what is wrong."""
    for entry in reversed(target.path):
        if entry in sys.path:
            sys.path.remove(entry)
        sys.path.insert(0, entry)
    if target.folders:
        UserFolders(target.folders).install()
    module = _import(target)
    attribute = target.attribute
    if attribute is None:
        attribute = next((name for name in ("pool", "create_pool") if hasattr(module, name)), None)
        if attribute is None:
            raise ModuleLoadError(
                f"{target.module} has neither `pool` nor `create_pool()`. Add `pool = ax.Pool()`, or name another "
                f"attribute as {target.module}:ATTRIBUTE."
            )
    if not hasattr(module, attribute):
        raise ModuleLoadError(f"{target.module} has no attribute {attribute!r}.")
    value = getattr(module, attribute)
    if not isinstance(getattr(value, "registry", None), Registry) and callable(value):
        value = _call(target, attribute, value)
    if not isinstance(getattr(value, "registry", None), Registry):
        raise ModuleLoadError(f"{target.module}:{attribute} is {type(value).__name__}, not an ax.Pool.")
    value.registry.complete()
    return value


def _call(target: Target, attribute: str, create_pool: Callable[[], Any]) -> Any:
    try:
        return create_pool()
    except AgentexecError:
        raise
    except (Exception, SystemExit) as error:
        raise ModuleLoadError(
            f"{target.module}:{attribute}() failed: {type(error).__name__}: {error}{_place(error)}."
        ) from error


def _import(target: Target) -> ModuleType:
    try:
        _require_own_name(target)
        if target.module.endswith(".py"):
            return _import_file(Path(target.module))
        return importlib.import_module(target.module)
    except AgentexecError:
        raise
    except MissingFileError as error:
        raise ModuleLoadError(f"There is no file {target.module}.") from error
    except SyntaxError as error:
        raise ModuleLoadError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
    except ModuleNotFoundError as error:
        if error.name and (target.module == error.name or target.module.startswith(f"{error.name}.")):
            raise ModuleLoadError(
                f"There is no module {target.module}. Run from the folder that holds it, or give a path like src/worker.py."
            ) from error
        raise _failed_import(target, str(error), error) from error
    except (Exception, SystemExit) as error:
        # Any error that the user's module raises during its import is for its author to read.
        raise _failed_import(target, f"{type(error).__name__}: {error}", error) from error


def _require_own_name(target: Target) -> None:
    """Raise ModuleLoadError if another module has the name of this one and comes first."""
    name = Path(target.module).stem if target.module.endswith(".py") else target.module.partition(".")[0]
    folders = UserFolders(target.folders)
    if (owner := folders.owner(name)) is not None:
        raise ModuleLoadError(folders.complaint(name, owner))


def _failed_import(target: Target, reason: str, error: BaseException) -> ModuleLoadError:
    hint = UserFolders(target.folders).hidden_by_name(error)
    if "no known parent package" in reason:
        file = Path(target.module)
        hint = f"Name the module of its package, like {file.parent.name}.{file.stem}, from the folder {file.parents[1]}."
    return ModuleLoadError(
        f"{target.module} cannot be imported: {reason}{_place(error)}.{f' {hint}' if hint else ''}"
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

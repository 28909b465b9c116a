"""Loading of the state backend that the settings name."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, cast

from agentexec.errors import BackendInvalidError
from agentexec.state.backend import PROTOCOL_VERSION, StateBackend

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from agentexec.config import Settings


def load_backend(module_path: str, settings: Settings, engine: Engine) -> StateBackend:
    """Create the backend of a module. Raises BackendInvalidError that names what the module or backend lacks."""
    module = _import(module_path)
    create = getattr(module, "create", None)
    if not callable(create):
        raise BackendInvalidError(
            f"AGENTEXEC_STATE_BACKEND names {module_path}, which lacks create(settings, engine)."
        )
    backend = create(settings, engine)
    version = getattr(backend, "protocol_version", PROTOCOL_VERSION)
    if version != PROTOCOL_VERSION:
        raise BackendInvalidError(
            f"The state backend of {module_path} implements version {version} of the protocol, and this release of agentexec needs {PROTOCOL_VERSION}; install releases of both that fit."
        )
    missing = [name for name in required_names() if not hasattr(backend, name)]
    if missing:
        raise BackendInvalidError(
            f"The state backend of {module_path} lacks {', '.join(missing)}; see agentexec.state.backend.StateBackend."
        )
    return cast(StateBackend, backend)


def create_storage(module_path: str, settings: Settings) -> str:
    """Create what a backend needs on its server, such as a table, and return a sentence about it.

    Raises:
        BackendInvalidError: The module cannot be imported.
        UnavailableError: The server cannot be reached, or refuses.
    """
    module = _import(module_path)
    create = getattr(module, "create_storage", None)
    if not callable(create):
        return f"{module_path} needs nothing to be created."
    return str(create(settings))


def _import(module_path: str) -> ModuleType:
    try:
        return importlib.import_module(module_path)
    except ImportError as error:
        raise BackendInvalidError(
            f"AGENTEXEC_STATE_BACKEND names {module_path}, which cannot be imported: {error}."
        ) from error


def required_names() -> list[str]:
    """Return the names of everything that a backend must have."""
    methods = [
        name for name, value in vars(StateBackend).items() if callable(value) and not name.startswith("_")
    ]
    return ["transactional", *methods]

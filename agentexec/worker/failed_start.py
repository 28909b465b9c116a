"""A failed start, as the processes of a worker report it to the supervisor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentexec.errors import (
    AgentexecError,
    BackendInvalidError,
    ModuleLoadError,
    SchemaError,
    SettingsError,
    UnavailableError,
    UsageError,
)
from agentexec.worker.target import Target

_KINDS: dict[str, type[AgentexecError]] = {
    kind.__name__: kind
    for kind in (
        ModuleLoadError,
        BackendInvalidError,
        SettingsError,
        UsageError,
        UnavailableError,
        SchemaError,
    )
}
_KINDS_BY_CODE = {kind.exit_code: kind for kind in (UsageError, UnavailableError, SchemaError)}


def to_message(error: AgentexecError) -> dict[str, Any]:
    """Return the message that reports an error which keeps the workers from starting."""
    return {"failed": str(error), "exit_code": error.exit_code, "error": type(error).__name__}


def from_message(message: Mapping[str, Any], target: Target) -> AgentexecError:
    """Return the reported error: of its own class, or of a class with its exit code. Its advice names the target."""
    code = int(message["exit_code"])
    kind = _KINDS.get(str(message.get("error")), _KINDS_BY_CODE.get(code, AgentexecError))
    return kind(target.named_in(str(message["failed"])))

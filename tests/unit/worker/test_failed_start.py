"""A failed start reaches the caller as the error that it was."""

from __future__ import annotations

import json

import pytest

import agentexec as ax
from agentexec.errors import BackendInvalidError, ModuleLoadError, SchemaError, SettingsError
from agentexec.worker.failed_start import from_message, to_message
from agentexec.worker.target import Target

TARGET = Target("worker")


@pytest.mark.parametrize(
    "kind",
    [
        ax.AgentexecError,
        ax.UsageError,
        ModuleLoadError,
        BackendInvalidError,
        SettingsError,
        ax.UnavailableError,
        SchemaError,
    ],
)
def test_an_error_keeps_its_class_its_sentence_and_its_exit_code(kind: type[ax.AgentexecError]) -> None:
    read = from_message(json.loads(json.dumps(to_message(kind("It is away.")))), TARGET)
    assert (type(read), str(read), read.exit_code) == (kind, "It is away.", kind.exit_code)


def test_another_error_gets_a_class_with_its_exit_code() -> None:
    read = from_message(
        {"failed": "There is no task x.", "exit_code": 2, "error": "UnknownTaskError"}, TARGET
    )
    assert type(read) is ax.UsageError
    assert type(from_message({"failed": "Odd.", "exit_code": 1}, TARGET)) is ax.AgentexecError

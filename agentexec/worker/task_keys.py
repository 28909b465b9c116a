"""Keys by which a worker's tasks are locked and limited, for tasks that were enqueued where their handlers are not known."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from agentexec.arguments.group_options import fill_concurrency_key, fill_key
from agentexec.errors import ContextInvalidError, EncryptionKeyError, PayloadLostError
from agentexec.payloads.sealing import unseal
from agentexec.registry import Registry


class RegisteredKeys:
    """Keys of the tasks in a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def names(self) -> Collection[str]:
        """Names of the tasks that have keys."""
        return {*self._registry.locked, *self._registry.limits}

    @property
    def lock_names(self) -> Collection[str]:
        """Names of the tasks that have a lock."""
        return self._registry.locked

    @property
    def limit_names(self) -> Collection[str]:
        """Names of the tasks that have a limit."""
        return self._registry.limits

    def fill(self, row: Any) -> tuple[str | None, str | None]:
        """Return the lock key and the concurrency key of a task's row: those that it has, or else those of its handler.

        Raises ContextInvalidError if the context lacks a field.
        """
        lock_key, concurrency_key, context = row.lock_key, row.concurrency_key, _opened(row.context)
        definition = self._registry.get(row.agent_type)
        if lock_key is None:
            lock_key = fill_key("lock_key", definition.name, definition.lock_key, context)
        if concurrency_key is None:
            limit, template = definition.concurrency, definition.concurrency_key
            concurrency_key = fill_concurrency_key(definition.name, limit, template, context)
        return lock_key, concurrency_key


def _opened(context: str | None) -> str | None:
    try:
        return None if context is None else unseal(context)
    except (
        EncryptionKeyError,
        PayloadLostError,
    ) as error:  # must not keep the other claims from being admitted
        raise ContextInvalidError(str(error)) from None

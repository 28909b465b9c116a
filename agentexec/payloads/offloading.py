"""Large values go to the payload store before the transaction that refers to them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from uuid import UUID

from agentexec.config import CONF
from agentexec.errors import AgentexecError
from agentexec.payloads.references import ENCRYPTED, Reference, find_place, folder_of, new_place
from agentexec.payloads.sealing import open_payload, seal
from agentexec.payloads.stores import payload_store

log = logging.getLogger("agentexec.payloads")

MOST_BYTES = 4
"""Bytes of a character in UTF-8 at most."""


def is_large(value: str | None) -> bool:
    """Return True for a value that belongs in the payload store."""
    if CONF.payload_store is None or value is None or isinstance(value, Reference):
        return False
    limit = CONF.payload_threshold
    if len(value) * MOST_BYTES <= limit:
        return False
    return len(value) > limit or len(value.encode()) > limit


def offload(owner: UUID | str, what: str, value: str) -> str:
    """Write a value to the payload store if it is large, and return what the database keeps: a reference, or the value itself.

    Blocks. Call it before the transaction; a value that is not referred to after all stays until its owner is removed.

    Args:
        owner: Id of the task, or of the conversation, that the value belongs to.
        what: Word for the value: journal, context, result or item.
        value: The value.

    Raises:
        UnavailableError: The store cannot be reached.
    """
    store = payload_store() if is_large(value) else None
    if store is None:
        return value
    data = value.encode()
    digest = ENCRYPTED if CONF.encryption_keys is not None else hashlib.sha256(data).hexdigest()
    place = new_place(owner, what, len(data), digest)
    store.put(place.path, seal(value).encode())
    return place.reference


def copy_payload(stored: str, agent_id: UUID) -> str | None:
    """Copy the value that a stored text refers to for another task, and return the text that refers to the copy.

    None for a text that is not a reference. Blocks. Raises PayloadLostError, UnavailableError.
    """
    place, store = find_place(stored), payload_store()
    if place is None:
        return None
    value, copy = open_payload(place), place.copy_for(agent_id)
    if store is not None:
        store.put(copy.path, seal(value).encode())
    return copy.reference


def remove_payloads(owners: Iterable[UUID | str]) -> None:
    """Remove all values of tasks or conversations that are not in the database any more.

    Blocks. What cannot be removed now is left to the sweep.
    """
    if CONF.payload_store is not None:
        _remove(map(folder_of, owners))


def remove_values(stored: Iterable[str]) -> None:
    """Remove the values that stored texts refer to, after the rows that had these texts; as `remove_payloads` does."""
    if CONF.payload_store is not None:
        _remove(place.path for text in stored if (place := find_place(text)) is not None)


def _remove(paths: Iterable[str]) -> None:
    try:
        if (store := payload_store()) is not None:
            for path in paths:
                store.remove(path)
    except AgentexecError as error:
        log.warning("%s Values of removed rows stay in the payload store until a worker sweeps it.", error)

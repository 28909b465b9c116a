"""Large values go to the payload store before the transaction that refers to them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

from agentexec.config import CONF
from agentexec.errors import AgentexecError, PayloadLostError, SchemaError
from agentexec.payloads.deployment import Deployment
from agentexec.payloads.references import ENCRYPTED, Reference, find_place, folder_of, new_place
from agentexec.payloads.sealing import NO_STORE, open_payload, prefix_of, seal, unseal
from agentexec.payloads.stores import PayloadStore, payload_store

log = logging.getLogger("agentexec.payloads")

REMOVERS = 16
"""Threads that remove folders: each takes a request or two of an object store."""

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


def offload(deployment: Deployment, owner: UUID | str, what: str, value: str) -> str:
    """Write a value to the payload store if it is large, and return what the database keeps: a reference, or the value itself.

    Blocks. Call it before the transaction; a value that is not referred to after all stays until its owner is removed.

    Args:
        deployment: Deployment that the value belongs to.
        owner: Id of the task, or of the conversation, that the value belongs to.
        what: Word for the value: journal, context, result or item.
        value: The value.

    Raises:
        UnavailableError: The store or the database cannot be reached.
    """
    store = payload_store() if is_large(value) else None
    if store is None:
        return value
    try:
        return _write(store, deployment.id, owner, what, value)
    except SchemaError:
        return value  # the first value of a database that gets its tables with it


def copy_payload(stored: str, agent_id: UUID) -> str:
    """Copy the value that a stored text refers to for another task of the same deployment, and return the copy's reference.

    Blocks. Raises PayloadLostError, UnavailableError.
    """
    place, value, store = find_place(stored), unseal(stored), payload_store()
    if place is None or store is None:
        return value
    return _write(store, place.deployment, agent_id, place.what, value)


def _write(store: PayloadStore, deployment: str, owner: UUID | str, what: str, value: str) -> Reference:
    data = value.encode()
    digest = ENCRYPTED if CONF.encryption_keys is not None else hashlib.sha256(data).hexdigest()
    place = new_place(deployment, owner, what, len(data), digest)
    store.put(place.path, seal(value).encode())
    return place.reference


def reencrypt(stored: str, name: str) -> bool:
    """Encrypt the value that a stored text refers to with the first key, whose fingerprint is `name`, in its place.

    Return False if it is already. Readers get the one or the other. Raises PayloadLostError if this process has no payload
    store, EncryptionKeyError, UnavailableError.
    """
    place, store = find_place(stored), payload_store()
    if place is None:
        return False
    if store is None:
        raise PayloadLostError(str(place), NO_STORE)
    try:
        if store.get(place.path).startswith(prefix_of(name).encode()):
            return False
    except FileNotFoundError:
        return False  # its row was removed meanwhile; else who reads it learns that it is missing
    store.put(place.path, seal(open_payload(place)).encode())
    return True


def remove_payloads(deployment: Deployment, owners: Iterable[UUID | str]) -> None:
    """Remove all values of tasks or conversations that are not in the database any more.

    Blocks. What cannot be removed now is left to the sweep.
    """
    if CONF.payload_store is not None:
        with _best_effort():
            name = deployment.id
            _remove([folder_of(name, owner) for owner in owners])


def remove_values(stored: Iterable[str]) -> None:
    """Remove the values that stored texts refer to, after the rows that had these texts; as `remove_payloads` does."""
    if CONF.payload_store is not None:
        with _best_effort():
            _remove([place.path for text in stored if (place := find_place(text)) is not None])


@contextmanager
def _best_effort() -> Generator[None]:
    try:
        yield
    except AgentexecError as error:
        log.warning("%s Values of removed rows stay in the payload store until a worker sweeps it.", error)


def _remove(paths: Sequence[str]) -> None:
    store = payload_store()
    if store is None or not paths:
        return
    with ThreadPoolExecutor(min(len(paths), REMOVERS)) as threads:
        list(threads.map(store.remove, paths))

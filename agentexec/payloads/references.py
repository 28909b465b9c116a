"""References to values in the payload store: what the database keeps in their place."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple
from uuid import UUID

REFERENCE = "payload:"
"""Beginning of every reference. JSON never begins so, and a plain text that does is stored in another form."""

ENCRYPTED = "-"
"""Digest of a value that was encrypted when it was written: the encryption shows damage, and a digest would help to guess."""

TASK, CONVERSATION = "task", "conversation"

_FORM = re.compile(
    rf"{REFERENCE}1:([0-9a-f]{{16}}):({TASK}|{CONVERSATION}):([0-9a-f]{{32}}):(\w+)-([0-9a-f]{{32}}):(\d+):([0-9a-f]{{64}}|-)",
    re.ASCII,
)


class Reference(str):
    """A reference as text. Its type tells it from a user's text that looks like one."""

    __slots__ = ()


class Place(NamedTuple):
    """A value in the payload store, as its reference describes it.

    `owner` is the id of the task that it belongs to, or the digest of a conversation's id; `size` is in bytes.
    """

    deployment: str
    kind: str
    owner: str
    what: str
    name: str
    size: int
    digest: str

    @property
    def path(self) -> str:
        """Path below the root of the store. It consists of hexadecimal digits and our own words."""
        return f"{_folder(self.deployment, self.kind, self.owner)}/{self.what}-{self.name}"

    @property
    def reference(self) -> Reference:
        """The text that the database keeps."""
        owner = f"{self.deployment}:{self.kind}:{self.owner}"
        return Reference(f"{REFERENCE}1:{owner}:{self.what}-{self.name}:{self.size}:{self.digest}")

    def __str__(self) -> str:
        owner = f"task {UUID(self.owner)}" if self.kind == TASK else "a conversation"
        return f"{self.what} value of {owner} ({self.path}, {self.size} bytes)"


def new_place(deployment: str, owner: UUID | str, what: str, size: int, digest: str) -> Place:
    """Return a place that no value has had: nothing in the store is shared or overwritten."""
    kind, name = (TASK, owner.hex) if isinstance(owner, UUID) else (CONVERSATION, _digest_of(owner))
    return Place(deployment, kind, name, what, secrets.token_hex(16), size, digest)


def find_place(stored: str) -> Place | None:
    """Return the place that a stored text refers to; None for any other text."""
    found = _FORM.fullmatch(stored) if stored.startswith(REFERENCE) else None
    return None if found is None else Place(*found.group(1, 2, 3, 4, 5), int(found[6]), found[7])


def folder_of(deployment: str, owner: UUID | str) -> str:
    """Return the folder of a task's values, or of a conversation's, below the root of the store."""
    kind, name = (TASK, owner.hex) if isinstance(owner, UUID) else (CONVERSATION, _digest_of(owner))
    return _folder(deployment, kind, name)


def shard_of(deployment: str, number: int) -> str:
    """Return the folder that has the folders of one in 256 tasks."""
    return f"{deployment}/{TASK}/{number:02x}"


def _folder(deployment: str, kind: str, owner: str) -> str:
    # The end of a task's id is random: the first digits are its time.
    return f"{deployment}/{kind}/{owner[-2:]}/{owner}"


def _digest_of(conversation: str) -> str:
    return hashlib.sha256(conversation.encode()).hexdigest()[:32]

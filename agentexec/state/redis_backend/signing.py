"""Signatures of the data in Redis by the keys of AGENTEXEC_SIGNING_KEY: the first one signs, all are accepted.

Signed are a queue's name with a task's id (in the task's mark), a mailbox's name with a message, and a task's id with an
event. A signature belongs to the mark, not to the id, so operations by id (renew, finish, remove, make_ready) need no key,
and work on entries signed by an older key or not at all.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Sequence

log = logging.getLogger("agentexec.signing")

SIGNATURE_BYTES = 16
QUIET_SECONDS = 60.0
"""Seconds between two log lines about dropped data."""


class Signer:
    """Signs texts and verifies signatures. Without keys, signatures are empty and everything is accepted."""

    def __init__(self, keys: Sequence[str], scope: str) -> None:
        # Hashed to a length that BLAKE2b accepts, whose keyed hash costs a fifth of an HMAC with SHA-256.
        self._keys = [hashlib.blake2b(key.encode()).digest() for key in keys]
        self._scope = scope
        self._lock = threading.Lock()
        self._dropped = 0
        self._quiet_until = 0.0

    @property
    def active(self) -> bool:
        """True if there is a key."""
        return bool(self._keys)

    def sign(self, kind: str, place: str, text: str) -> str:
        """Return the signature of a text in a place. Kinds and places contain no NUL."""
        return self._signature(self._keys[0], kind, place, text) if self._keys else ""

    def verify(self, signature: str, kind: str, place: str, text: str) -> bool:
        """Return True for a signature by any of the keys."""
        if not self._keys:
            return True
        # Not by ==, whose duration tells how much of a guess is right.
        given = signature.encode("utf-8", "replace")
        return any(
            hmac.compare_digest(given, self._signature(key, kind, place, text).encode()) for key in self._keys
        )

    def wrap(self, kind: str, place: str, text: str) -> str:
        """Return a text with its signature in front; unchanged without a key."""
        return f"{self.sign(kind, place, text)} {text}" if self._keys else text

    def unwrap(self, kind: str, place: str, text: str) -> str | None:
        """Return the text of `wrap`, or None without a valid signature."""
        signature, _, inner = text.partition(" ")
        if not self._keys:
            return text
        return inner if self.verify(signature, kind, place, inner) else None

    def note_dropped(self, number: int, what: str) -> None:
        """Log, at most once a minute, that data without a valid signature was dropped."""
        with self._lock:
            self._dropped += number
            if time.monotonic() < self._quiet_until:
                return
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            number, self._dropped = self._dropped, 0
        log.warning(
            "Dropped %s without a valid signature (%d). Real tasks and results are read from the database again. Check "
            "that every process has the same AGENTEXEC_SIGNING_KEY.",
            what,
            number,
        )

    def _signature(self, key: bytes, kind: str, place: str, text: str) -> str:
        message = f"{kind}\0{self._scope}\0{place}\0{text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(message, key=key, digest_size=SIGNATURE_BYTES).digest()
        return binascii.b2a_base64(digest, newline=False).rstrip(b"=").translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")

"""Signatures of what stands in Redis, with the keys of AGENTEXEC_SIGNING_KEY: the first one signs, each of them is accepted.

What is signed: a queue's name and the id of a task, as part of the task's mark; a mailbox's name and a message; a task's
id and an event. A signature belongs to the mark and not to the id, so whatever is done by id (renew, finish, remove,
make_ready) needs no key, and works on entries that were signed by an older key or by none.
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
"""Between two log lines about what was dropped."""


class Signer:
    """Signs and checks texts that belong together. Without keys signatures are empty, and everything is accepted."""

    def __init__(self, keys: Sequence[str], scope: str) -> None:
        # Of the length that BLAKE2b takes. As a keyed hash it costs a fifth of an HMAC with SHA-256.
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
        """The signature of a text in a place. Neither kinds nor places hold a NUL."""
        return self._signature(self._keys[0], kind, place, text) if self._keys else ""

    def verify(self, signature: str, kind: str, place: str, text: str) -> bool:
        """True for a signature by any of the keys."""
        if not self._keys:
            return True
        # Not by ==, whose time tells how much of a guess is right.
        given = signature.encode("utf-8", "replace")
        return any(
            hmac.compare_digest(given, self._signature(key, kind, place, text).encode()) for key in self._keys
        )

    def wrap(self, kind: str, place: str, text: str) -> str:
        """A text with its signature in front; as it is where there is no key."""
        return f"{self.sign(kind, place, text)} {text}" if self._keys else text

    def unwrap(self, kind: str, place: str, text: str) -> str | None:
        """What was wrapped; None if it was not, or not by us."""
        signature, _, inner = text.partition(" ")
        if not self._keys:
            return text
        return inner if self.verify(signature, kind, place, inner) else None

    def note_dropped(self, number: int, what: str) -> None:
        """Log that something without a valid signature was dropped, at most once a minute."""
        with self._lock:
            self._dropped += number
            if time.monotonic() < self._quiet_until:
                return
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            number, self._dropped = self._dropped, 0
        log.warning(
            "Dropped %d of %s without a valid signature; what the database knows of them comes back from there. Does "
            "every process have the same AGENTEXEC_SIGNING_KEY?",
            number,
            what,
        )

    def _signature(self, key: bytes, kind: str, place: str, text: str) -> str:
        message = f"{kind}\0{self._scope}\0{place}\0{text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(message, key=key, digest_size=SIGNATURE_BYTES).digest()
        return binascii.b2a_base64(digest, newline=False).rstrip(b"=").translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")

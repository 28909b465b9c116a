"""The form of the keys that encrypt stored values, and their fingerprints."""

from __future__ import annotations

import base64
import binascii
import hashlib

KEY_BYTES = 32
FINGERPRINT_LENGTH = 16


def check_key(key: str) -> None:
    """Raise ValueError for a text that is not a key of Fernet: 32 bytes in URL-safe base64. The message is without the key."""
    try:
        found = base64.b64decode(key.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        found = b""
    if len(found) != KEY_BYTES:
        raise ValueError(
            f"each key must be {KEY_BYTES} random bytes in URL-safe base64, as `openssl rand -base64 32 | tr +/ -_` "
            "prints, with commas between keys"
        )


def fingerprint(key: str) -> str:
    """Return the short name of a key. It does not reveal the key."""
    return hashlib.sha256(base64.urlsafe_b64decode(key)).hexdigest()[:FINGERPRINT_LENGTH]

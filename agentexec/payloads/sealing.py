"""The two functions between a value and its stored form. Every write of a value goes through `seal`, every read through `unseal`.

Columns of the type `Payload` call them by themselves. Raw SQL calls them where it passes values to the driver, or takes them
from it. A large value is in the payload store, and its stored form is a reference (`payloads.offloading`).
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence

from agentexec.arguments.encryption_keys import FINGERPRINT_LENGTH, fingerprint
from agentexec.arguments.setting_types import split_keys
from agentexec.config import CONF
from agentexec.errors import EncryptionKeyError, PayloadLostError, SettingsError
from agentexec.payloads.references import ENCRYPTED, REFERENCE, Place, Reference, find_place
from agentexec.payloads.stores import payload_store

MARK = "encrypted:"
"""Beginning of every encrypted text. JSON never begins so."""

PLAIN = f"{MARK}0:"
"""Beginning of a plain text that looks like an encrypted one."""

NO_STORE = "this process has no AGENTEXEC_PAYLOAD_STORE"
"""Reason why a value cannot be read."""

_ENCRYPTED = re.compile(rf"{MARK}1:([0-9a-f]{{{FINGERPRINT_LENGTH}}}):([\w-]+=*)", re.ASCII)


def seal(value: str) -> str:
    """Return the stored form of a value: encrypted with the first key, or the value itself if there are no keys.

    Raises SettingsError if the library is missing.
    """
    if isinstance(value, Reference):
        return str(value)
    keys = CONF.encryption_keys
    if keys is not None:
        return _keyring(keys.get_secret_value()).encrypt(value)
    return PLAIN + value if value.startswith((MARK, REFERENCE)) else value


def unseal(stored: str) -> str:
    """Return the value of a stored form. Blocks while a large one is fetched from the payload store.

    Raises EncryptionKeyError if it is encrypted with a key that this process lacks, or damaged; PayloadLostError if it is not
    in the payload store; UnavailableError; SettingsError if a library is missing.
    """
    if stored.startswith(REFERENCE) and (place := find_place(stored)) is not None:
        return open_payload(place)
    return _opened(stored)


def open_payload(place: Place) -> str:
    """Return a value of the payload store. Blocks, and raises what `unseal` raises."""
    store = payload_store()
    if store is None:
        raise PayloadLostError(str(place), NO_STORE)
    try:
        data = store.get(place.path).decode()
    except FileNotFoundError:
        raise PayloadLostError(
            str(place), "it is not in the payload store, which must be the same for all processes"
        ) from None
    except UnicodeDecodeError:
        raise PayloadLostError(str(place), "it is damaged") from None
    value = _opened(data)
    if place.digest == ENCRYPTED:
        is_whole = _ENCRYPTED.fullmatch(data) is not None
    else:
        is_whole = hashlib.sha256(value.encode()).hexdigest() == place.digest
    if not is_whole:
        raise PayloadLostError(str(place), "it is damaged")
    return value


def is_payload(stored: str | None) -> bool:
    """Return True if the value of a stored form has to be fetched, which must not happen on an event loop."""
    return stored is not None and stored.startswith(REFERENCE)


def _opened(stored: str) -> str:
    if not stored.startswith(MARK):
        return stored
    if stored.startswith(PLAIN):
        return stored[len(PLAIN) :]
    found = _ENCRYPTED.fullmatch(stored)
    if found is None:  # a text that was stored by a release without encryption
        return stored
    keys = CONF.encryption_keys
    if keys is None:
        raise EncryptionKeyError(found[1])
    return _keyring(keys.get_secret_value()).decrypt(found[1], found[2])


def first_fingerprint() -> str | None:
    """Return the fingerprint of the key that encrypts; None if there are no keys."""
    keys = split_keys(CONF.encryption_keys)
    return fingerprint(keys[0]) if keys else None


def require_encryption() -> None:
    """Raise SettingsError if there are keys, and the library is missing."""
    if (keys := CONF.encryption_keys) is not None:
        _keyring(keys.get_secret_value())


def prefix_of(name: str) -> str:
    """Return how the stored form begins that the key with this fingerprint has encrypted."""
    return f"{MARK}1:{name}:"


class _Keyring:
    """Keys by fingerprint. The first one encrypts, all decrypt."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Imported on use: most processes have no keys, and the library is an extra.
        try:
            from cryptography.fernet import Fernet  # noqa: PLC0415
        except ModuleNotFoundError:
            raise SettingsError(
                "AGENTEXEC_ENCRYPTION_KEYS needs cryptography; install it with: pip install 'agentexec[encryption]'."
            ) from None
        self._ciphers = {fingerprint(key): Fernet(key) for key in keys}
        self._first = fingerprint(keys[0])

    def encrypt(self, value: str) -> str:
        return prefix_of(self._first) + self._ciphers[self._first].encrypt(value.encode()).decode()

    def decrypt(self, name: str, token: str) -> str:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - is there: the keyring has loaded it

        cipher = self._ciphers.get(name)
        if cipher is None:
            raise EncryptionKeyError(name)
        try:
            return cipher.decrypt(token).decode()
        except InvalidToken:
            raise EncryptionKeyError(name, is_damaged=True) from None


@functools.lru_cache(maxsize=8)
def _keyring(keys: str) -> _Keyring:
    return _Keyring([key.strip() for key in keys.split(",")])

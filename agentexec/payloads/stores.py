"""Payload stores: named values in a folder of the file system, or wherever fsspec can write."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from agentexec.config import CONF
from agentexec.errors import SettingsError, UnavailableError
from agentexec.redaction import redact

FILE = "file://"


class PayloadStore(Protocol):
    """Values by their paths, which consist of plain names with slashes between them.

    Every method blocks, and raises UnavailableError if the store cannot be reached or does not exist.
    """

    def put(self, path: str, data: bytes) -> None:
        """Write a value, so that it survives a crash of this host once this has returned."""

    def get(self, path: str) -> bytes:
        """Return a value. Raises FileNotFoundError if it is missing."""

    def remove(self, path: str) -> None:
        """Remove a value or a folder, if it is there."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none if it is missing."""

    def changed_at(self, path: str) -> float:
        """Return when a value was written, in seconds since the epoch; 0 if it is missing."""


class FileStore:
    """Payload store in a folder, which may be shared by several hosts."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, data: bytes) -> None:
        """Write a value to a file beside its place, then give it its name, each on disk before the next."""
        try:
            self._put(path, data)
        except FileNotFoundError:  # others have removed the folder in this moment
            raise UnavailableError("A value could not be written to the payload store; try again.") from None

    def _put(self, path: str, data: bytes) -> None:
        file = self._root / path
        unfinished = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        with self._translating():
            self._make_folders(file.parent)
            try:
                with unfinished.open("xb") as output:
                    output.write(data)
                    output.flush()
                    os.fsync(output.fileno())
                unfinished.replace(file)
            except BaseException:
                with suppress(OSError):
                    unfinished.unlink()
                raise
            _sync_folder(file.parent)

    def get(self, path: str) -> bytes:
        """Return a value. Raises FileNotFoundError if it is missing."""
        with self._translating():
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                self._require_root()
                raise

    def remove(self, path: str) -> None:
        """Remove a value or a folder, if it is there."""
        target = self._root / path
        with self._translating(), suppress(FileNotFoundError):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink()

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none if it is missing."""
        with self._translating():
            try:
                return sorted(path.name for path in (self._root / folder).iterdir())
            except FileNotFoundError:
                self._require_root()
                return []

    def changed_at(self, path: str) -> float:
        """Return when a value was written, in seconds since the epoch; 0 if it is missing."""
        with self._translating():
            try:
                return (self._root / path).stat().st_mtime
            except FileNotFoundError:
                return 0.0

    def _make_folders(self, folder: Path) -> None:
        """Make the folders between the root and a file. The root itself is made by people: it may be a mount."""
        if folder.is_dir():
            return
        if folder == self._root:
            self._require_root()
        self._make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)

    def _require_root(self) -> None:
        if not self._root.is_dir():
            raise UnavailableError(f"The payload store is away: there is no folder {self._root}.")

    @contextmanager
    def _translating(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UnavailableError(f"The payload store {self._root} cannot be used: {reason}.") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FsspecStore:
    """Payload store in any file system of fsspec, such as S3.

    Args:
        system: File system.
        root: Path of the store in it.
    """

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def put(self, path: str, data: bytes) -> None:
        """Write a value with one request."""
        target = self._path(path)
        with _translating():
            try:
                self._system.pipe_file(target, data)
            except FileNotFoundError:
                # A file system with folders. A missing bucket is not made, nor a missing root.
                if not self._system.exists(self._root):
                    raise UnavailableError(
                        "The payload store is away: its bucket or folder is missing."
                    ) from None
                self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._write_again(target, data)

    def _write_again(self, target: str, data: bytes) -> None:
        try:
            self._system.pipe_file(target, data)
        except FileNotFoundError:
            raise UnavailableError("A value could not be written to the payload store; try again.") from None

    def get(self, path: str) -> bytes:
        """Return a value. Raises FileNotFoundError if it is missing."""
        with _translating():
            return bytes(self._system.cat_file(self._path(path)))

    def remove(self, path: str) -> None:
        """Remove a value or a folder, if it is there."""
        with _translating(), suppress(FileNotFoundError):
            self._system.rm(self._path(path), recursive=True)

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none if it is missing."""
        with _translating():
            try:
                found = self._system.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def changed_at(self, path: str) -> float:
        """Return when a value was written, in seconds since the epoch; 0 if it is missing."""
        with _translating():
            try:
                return self._system.modified(self._path(path)).timestamp()
            except FileNotFoundError:
                return 0.0

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"


@contextmanager
def _translating() -> Generator[None]:
    """Turn whatever a file system raises into UnavailableError: each has errors of its own."""
    try:
        yield
    except (FileNotFoundError, UnavailableError):
        raise
    except Exception as error:
        reason = redact(str(error).strip().partition("\n")[0][:200], CONF.secrets)
        raise UnavailableError(
            f"The payload store cannot be used: {reason.rstrip('. ') or type(error).__name__}."
        ) from error


def payload_store() -> PayloadStore | None:
    """Return the payload store of AGENTEXEC_PAYLOAD_STORE; None if there is none. Raises SettingsError."""
    url = CONF.payload_store
    # A connection of fsspec must not be shared with a child process.
    return None if url is None else _open(url, os.getpid())


@functools.lru_cache(maxsize=8)
def _open(url: str, pid: int) -> PayloadStore:
    if url.startswith(FILE):
        return FileStore(Path(unquote(url.removeprefix(FILE))))
    # Imported on use: most processes have no payload store, and the library is an extra.
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SettingsError(
            "AGENTEXEC_PAYLOAD_STORE needs fsspec; install it with: pip install 'agentexec[payloads]'."
        ) from None
    try:
        # Without caches: other processes write too.
        system, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        reason = redact(str(error).partition("\n")[0], CONF.secrets).rstrip(".")
        raise SettingsError(f"AGENTEXEC_PAYLOAD_STORE cannot be used: {reason}.") from None
    return FsspecStore(system, root)


def shown_url(url: str) -> str:
    """Return the URL of a store without what may be secret in it."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def check_store() -> None:
    """Write, read and remove a value, if there is a payload store.

    Raises SettingsError or UnavailableError, which say what is wrong.
    """
    store = payload_store()
    if store is None:
        return
    path = f"check-{secrets.token_hex(8)}"
    store.put(path, b"agentexec")
    try:
        if store.get(path) != b"agentexec":
            raise UnavailableError("The payload store returns another value than was written.")
    except FileNotFoundError:
        raise UnavailableError("The payload store does not have what was written to it.") from None
    finally:
        store.remove(path)

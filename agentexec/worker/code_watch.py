"""Watch over the user's code, for development: tells the supervisor when a Python file changes."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agentexec.errors import SettingsError
from agentexec.worker.target import Target
from agentexec.worker.user_folders import file_of

log = logging.getLogger("agentexec.supervisor")

QUIET_MS = 200
"""Milliseconds without a change after which a group of changes is complete."""

NAMED_FILES = 3
"""Changed files that the log names."""


class CodeWatch:
    """A thread that watches folders, from the constructor to `close`.

    Args:
        folders: Folders, which are watched with all folders inside them.
        on_change: Called in the thread when Python files, or `.env`, have changed.

    Raises:
        SettingsError: `watchfiles` is not installed.
    """

    def __init__(self, folders: Iterable[str], on_change: Callable[[], object]) -> None:
        try:
            self._watchfiles: Any = importlib.import_module("watchfiles")
        except ImportError:
            raise SettingsError(
                "--reload needs watchfiles; install it with `pip install 'agentexec[reload]'`."
            ) from None
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts what the log here names
        self._folders = _outermost(folders)
        self._on_change = on_change
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-code-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()

    def _run(self) -> None:
        default = self._watchfiles.DefaultFilter()

        def is_code(change: Any, path: str) -> bool:
            name = Path(path).name
            return (name.endswith(".py") or name == ".env") and bool(default(change, path))

        log.info("Watching the Python files in %s.", " and ".join(map(str, self._folders)))
        try:
            for changes in self._watchfiles.watch(
                *self._folders,
                watch_filter=is_code,
                step=QUIET_MS,
                stop_event=self._stop,
                raise_interrupt=False,
            ):
                names = sorted({Path(path).name for _, path in changes})
                more = ", ..." if len(names) > NAMED_FILES else ""
                log.info("Changed: %s%s.", ", ".join(names[:NAMED_FILES]), more)
                self._on_change()
        except Exception as error:  # such as too many folders for the system
            log.error("Cannot watch the code any more (%s); send SIGHUP after a change.", error)


def code_folders(target: Target) -> list[str]:
    """Return the folders in which the code of a target is, or may be."""
    file = file_of(target)
    return [*target.folders, str(Path.cwd()), *([str(Path(file).parent)] if file else [])]


def _outermost(folders: Iterable[str]) -> list[Path]:
    """Return the folders that exist, without those inside another one."""
    found = {Path(folder).resolve() for folder in folders if Path(folder).is_dir()}
    return sorted(folder for folder in found if not any(parent in found for parent in folder.parents))

"""Prints as log lines: the standard streams of a worker process whose log is JSON."""

from __future__ import annotations

import io
import logging
import threading
from typing import TextIO

MAX_LINE = 100_000
"""Characters of a line without an end after which it is written in parts."""


class PrintedLines(io.TextIOBase):
    """Stream that makes a log line of each line that is printed, and leaves bytes and descriptors to the real stream.

    Threads: any may write; each completes its own lines.

    Args:
        stream: The real stream.
        handler: Handler that writes the lines.
        logger: Name of the logger that the lines are said to come from.
        level: Level of the lines.
    """

    def __init__(self, stream: TextIO, handler: logging.Handler, logger: str, level: int) -> None:
        self._stream = stream
        self._logger = logger
        self._level = level
        self._handler = handler
        self._parts = threading.local()

    @property
    def behind(self) -> TextIO:
        """The real stream."""
        return self._stream

    @property
    def buffer(self) -> object:
        """Stream of bytes behind the real stream."""
        return self._stream.buffer

    @property
    def encoding(self) -> str:  # ty: ignore[incompatible-property-override]
        """Encoding of the real stream."""
        return self._stream.encoding

    def fileno(self) -> int:
        """Return the descriptor of the real stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return False: what is printed becomes a log line."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write the lines that are now complete, and keep the rest."""
        if getattr(self._parts, "writing", False):
            # The handler complains that it cannot write.
            return self._stream.write(text)
        *lines, rest = (getattr(self._parts, "text", "") + text).split("\n")
        if len(rest) > MAX_LINE:
            lines, rest = [*lines, rest], ""
        self._parts.text = rest
        self._parts.writing = True
        try:
            for line in lines:
                if line.strip():
                    self._handler.handle(
                        logging.LogRecord(self._logger, self._level, "", 0, line, None, None)
                    )
        finally:
            self._parts.writing = False
        return len(text)

    def flush(self) -> None:
        """Write also this thread's line that has no end yet."""
        if getattr(self._parts, "text", ""):
            self.write("\n")
        self._stream.flush()


def real_stream(stream: TextIO) -> TextIO:
    """Return the stream behind one that makes log lines, or the stream itself."""
    return stream.behind if isinstance(stream, PrintedLines) else stream

"""Texts of a model as one client has got them: text that is written again after a crash is not sent twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from zlib import crc32

MAX_TEXTS = 8
"""Texts that are tracked at a time: those that are open, and the one before."""

GAP = "…"
"""Stands where live text is missing."""

_RUN = re.compile(r"[0-9a-f]{8}")
_STATE = re.compile(r"([0-9a-f]{8}\.[0-9]{1,7})-([0-9]{1,4})-([0-9]{1,10})-([0-9a-f]{1,8})-(o?)(b?)(s?)")

NO_TURN = 0
"""Turn of a text whose events do not say it; turns count from 1."""


class TextChange(NamedTuple):
    """Change of a text that a client shows: it begins, grows, ends, or is withdrawn because it is written again.

    `was_open` tells of a withdrawn text that it had not ended: the withdrawal is its end.
    """

    kind: Literal["begin", "add", "end", "withdraw"]
    name: str
    text: str = ""
    was_open: bool = False


@dataclass
class WrittenText:
    """Text of one turn, as far as the client has it."""

    key: str
    version: int = 0
    chars: int = 0
    checksum: int = 0
    is_open: bool = False
    broken: bool = False
    """True if text is missing in it."""
    again: list[str] = field(default_factory=list)
    """The same turn's text from its start, as long as it is shorter than what the client has."""
    rewriting: bool = False
    next_offset: int = 0
    """Offset of the next event that does not give its own."""

    @property
    def name(self) -> str:
        """Name of the message; a text that replaces a withdrawn one has a new name."""
        return f"{self.key}.{self.version}" if self.version else self.key

    def starts(self, text: str) -> bool:
        """Return True if what the client has is the beginning of this text, or all of it."""
        return not self.broken and self.checksum == checksum_of(text[: self.chars])


class WrittenTexts:
    """The texts that one client has got, by their turn."""

    def __init__(self) -> None:
        self._texts: dict[str, WrittenText] = {}

    def is_new(self, data: dict[str, Any]) -> bool:
        """Return True if the text of a `text_delta` is not tracked yet."""
        return _key(data)[0] not in self._texts

    def add(self, data: dict[str, Any]) -> Iterator[TextChange]:
        """Yield what the data of a `text_delta` changes. Anyone with access to the queue may have written it."""
        text = data.get("text")
        if not isinstance(text, str) or not text:
            return
        key, offset = _key(data)
        written = self._texts.get(key)
        if written is None:
            yield from self.close(key.partition(".")[0])
            yield from self._make_room()
            written = self._texts[key] = WrittenText(key)
        if offset is None:
            offset = written.next_offset
        written.next_offset = offset + len(text)
        if written.rewriting or (offset == 0 and written.chars):
            yield from _rewrite(written, offset, text)
        else:
            yield from _continue(written, offset, text)
        written.broken = written.broken or bool(data.get("truncated"))

    def close(self, run: str | None = None) -> Iterator[TextChange]:
        """Yield the end of all open texts, or of those of one run."""
        for written in self._texts.values():
            if run is None or written.key.startswith(run):
                yield from _close(written)

    def note_new_attempt(self) -> None:
        """Note that a worker has started the task again: it begins the texts that were not finished from their start."""
        for written in self._texts.values():
            written.next_offset = 0

    @property
    def held_back(self) -> bool:
        """True while a text is held back that is written again, and `dump` does not tell all."""
        return any(written.rewriting for written in self._texts.values())

    def contain(self, text: str) -> bool:
        """Return True if the client has this text as a whole."""
        return any(written.chars == len(text) and written.starts(text) for written in self._texts.values())

    def dump(self) -> list[str]:
        """Return the state as words of printable ASCII."""
        self._forget_closed()
        return [
            f"{text.key}-{text.version}-{text.chars}-{text.checksum:x}-"
            f"{'o' * text.is_open}{'b' * text.broken}{'s' * (text.next_offset == 0)}"
            for text in self._texts.values()
        ]

    def load(self, word: str) -> bool:
        """Take over a word of `dump`; return False if it is none."""
        match = _STATE.fullmatch(word)
        if match is None or len(self._texts) >= MAX_TEXTS:
            return False
        key, version, chars, checksum, is_open, broken, starts = match.groups()
        text = WrittenText(key, int(version), int(chars), int(checksum, 16), bool(is_open), bool(broken))
        text.next_offset = 0 if starts else text.chars
        self._texts[key] = text
        return True

    def reopen(self) -> Iterator[TextChange]:
        """Yield the beginning of the open texts, for a client that starts again in the middle of them."""
        for written in self._texts.values():
            if written.is_open:
                yield TextChange("begin", written.name)

    def _make_room(self) -> Iterator[TextChange]:
        self._forget_closed()
        while len(self._texts) >= MAX_TEXTS:
            yield from _close(self._texts.pop(next(iter(self._texts))))

    def _forget_closed(self) -> None:
        """Forget the texts that have ended but the last, which may be the task's result."""
        closed = [key for key, text in self._texts.items() if not text.is_open and not text.rewriting]
        for key in closed[:-1]:
            del self._texts[key]


def checksum_of(text: str, start: int = 0) -> int:
    """Return a checksum of a text that continues one with the checksum `start`."""
    return crc32(text.encode("utf-8", "replace"), start)


def _key(data: dict[str, Any]) -> tuple[str, int | None]:
    """Return the key of a text and the offset of the piece; workers of older releases send neither."""
    run, turn, offset = data.get("run"), data.get("turn"), data.get("offset")
    if (
        isinstance(run, str)
        and _RUN.fullmatch(run)
        and isinstance(turn, int)
        and isinstance(offset, int)
        and 0 < turn < 10_000_000
        and 0 <= offset < 1_000_000_000
    ):
        return f"{run}.{turn}", offset
    return f"{checksum_of(str(data.get('item_id'))):08x}.{NO_TURN}", None


def _continue(written: WrittenText, offset: int, text: str) -> Iterator[TextChange]:
    if offset < written.chars:
        # The client has come back in the middle of a text that is written again.
        written.broken = True
        text = text[written.chars - offset :]
    elif offset > written.chars:
        yield from _append(written, GAP)
        written.broken, written.chars = True, offset
    if text:
        yield from _append(written, text)


def _append(written: WrittenText, text: str) -> Iterator[TextChange]:
    if not written.is_open:
        written.is_open = True
        yield TextChange("begin", written.name)
    written.checksum = checksum_of(text, written.checksum)
    written.chars += len(text)
    yield TextChange("add", written.name, text)


def _rewrite(written: WrittenText, offset: int, text: str) -> Iterator[TextChange]:
    """Wait until the new text is as long as the one that the client has; then either continue it or replace it."""
    if offset == 0:
        written.rewriting, written.again = True, []
    elif offset != sum(map(len, written.again)):
        written.again.append(GAP)
        yield from _replace(written)
        yield from _continue(written, offset, text)
        return
    written.again.append(text)
    whole = "".join(written.again)
    if len(whole) < written.chars:
        return
    if written.starts(whole):
        written.rewriting, written.again = False, []
        if whole[written.chars :]:
            yield from _append(written, whole[written.chars :])
    else:
        yield from _replace(written)


def _replace(written: WrittenText) -> Iterator[TextChange]:
    whole = "".join(written.again)
    yield TextChange("withdraw", written.name, was_open=written.is_open)
    written.is_open = False
    written.version += 1
    written.chars, written.checksum, written.broken = 0, 0, False
    written.rewriting, written.again = False, []
    if whole:
        yield from _append(written, whole)


def _close(written: WrittenText) -> Iterator[TextChange]:
    if written.rewriting:
        yield from _replace(written)
    if written.is_open:
        written.is_open = False
        yield TextChange("end", written.name)
    if written.key.endswith(f".{NO_TURN}") and written.chars:
        # The next turn's text may have the same key.
        written.version += 1
        written.chars, written.checksum, written.broken, written.next_offset = 0, 0, False, 0

"""Facts of the journal: their kinds, and their values and paths as text."""

from __future__ import annotations

import enum
import hashlib
import json
from typing import Any, NamedTuple

from agentexec.config import CONF
from agentexec.errors import PayloadTooLargeError
from agentexec.journal.ledger import Charge
from agentexec.journal.models import MAX_PATH


class FactKind(enum.StrEnum):
    """The kind of a fact, as the journal stores it."""

    RUN = "run"
    MODEL = "model"
    INTENT = "intent"
    OUTCOME = "outcome"
    RAISED = "raised"
    SANDBOX = "sandbox"
    FORK = "fork"
    BACKGROUND = "background"


STEPS = (FactKind.MODEL, FactKind.OUTCOME)
"""Kinds that are recorded once and never repeated. A call that raises may record its intent and error in every attempt."""


SAFE_KINDS = (FactKind.INTENT, FactKind.BACKGROUND)
"""Kinds that must survive a crash of the database's server: without them something would be done, or paid, again."""

ANY_INPUT = ""
"""Hash of an input in a replayed record that fits every input."""


class Fact(NamedTuple):
    """One recorded event at `path`. `value` is JSON text; `input_hash` is the digest of the input that led to it."""

    path: str
    seq: int
    kind: FactKind
    input_hash: str
    value: str


class Usage(NamedTuple):
    """Requests and tokens of one model response. `input_tokens` include the cached ones.

    `charge` is what the response costs, for the budgets that its call counts for.
    """

    model: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    charge: Charge | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Requests and tokens by their names."""
        return {name: getattr(self, name) for name in COUNTS}


COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens")


def add_usage(spent: dict[str, dict[str, int]], usage: Usage) -> dict[str, dict[str, int]]:
    """Return the usage by model with one more response."""
    before = spent.get(usage.model, {})
    return {
        **spent,
        usage.model: {name: before.get(name, 0) + count for name, count in usage.counts.items()},
    }


def dump(value: Any, what: str) -> str:
    """Return a JSON value as text; raises PayloadTooLargeError above AGENTEXEC_MAX_PAYLOAD_BYTES."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which no database stores
        text = json.dumps(value, separators=(",", ":"))
        size = len(text)
    if size > CONF.max_payload_bytes:
        raise PayloadTooLargeError(
            f"{what} is {size} bytes of JSON, more than the {CONF.max_payload_bytes} that the journal takes; "
            "return less, or raise AGENTEXEC_MAX_PAYLOAD_BYTES."
        )
    return text


MAX_SEGMENT = 60
"""Characters of a name in a path; the rest of the name is cut off."""


def path_segment(name: str) -> str:
    """Return a name as a part of a path, without the characters that separate the parts."""
    return name.replace("/", "_").replace("#", "_")[:MAX_SEGMENT]


def background_path(run: str, turn: int) -> str:
    """Return the path of the background responses to a model call of a run."""
    return fit_path(f"{run}/background_{turn}")


def fit_path(path: str) -> str:
    """Return a path that its column can store: one that is too long, or ends with a space, ends with its hash instead.

    MariaDB compares texts without the spaces at their ends.
    """
    if len(path) <= MAX_PATH and not path.endswith(" "):
        return path
    return f"{path[: MAX_PATH - 65]}~{hashlib.sha256(path.encode()).hexdigest()}"

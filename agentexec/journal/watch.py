"""Watch over an offline replay: what the code asks for is compared with the record, and nothing is called.

`RUNTIME.replay` holds the watch while `ax.testing.replay` or `agentexec check` runs a task; it is None in a worker.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentexec.errors import AgentexecError, ReplayDivergedError
from agentexec.journal.canonical import canonical_json, digest
from agentexec.journal.facts import STEPS, Fact, FactKind
from agentexec.journal.recorder import Recorder

QUIET_SECONDS = 0.3
"""Seconds without an answer from the record after which branches that run side by side cannot ask for more."""

MAX_DIFF_LINES = 80

MAX_PATHS = 3
"""Paths that a message lists."""


class RecordEndedError(AgentexecError):
    """The replay has come to the end of the record. It ends the attempt before anything new is done."""


class ReplayWatch:
    """Watch over the replay of one record.

    Args:
        facts: The facts of the record, with the hashes of their inputs.
        inputs: Known inputs of model calls, by `input_name`.
        present: Function that returns a JSON value without secrets.
        is_open: True if the task had not ended, so that it may do more than the record has.
        stops: True to end the attempt at the last recorded answer, before code that comes after it.
        accepts: True to accept other inputs; they are in `actual_inputs` then.
    """

    def __init__(
        self,
        facts: Sequence[Fact],
        inputs: Mapping[str, Any],
        present: Callable[[Any], Any],
        *,
        is_open: bool,
        stops: bool,
        accepts: bool,
    ) -> None:
        self._facts = {(fact.path, fact.seq): fact for fact in facts}
        self._inputs = inputs
        self._present = present
        self._is_open = is_open
        self._stops = stops
        self._accepts = accepts
        self._open = {
            key for key, fact in self._facts.items() if fact.kind in STEPS and not _is_unasked(fact)
        }
        self._answered_at = time.monotonic()
        self.actual_inputs: dict[str, Any] = {}
        """Inputs of the model calls that the replay made."""
        self.divergence: ReplayDivergedError | None = None
        """The first divergence; None if there is none."""
        self.ended = False
        """True once the record has ended without a divergence."""
        self.new_step: str | None = None
        """The step that the code has added, in a replay that stops there: a worker would make it. None if there is none."""

    @property
    def is_open(self) -> bool:
        """True if the task had not ended."""
        return self._is_open

    @property
    def missed(self) -> list[str]:
        """Paths of recorded steps that the code did not ask for."""
        return sorted({path for path, _ in self._open})

    def check_input(self, recorder: Recorder, path: str, turn: int, given: Any) -> None:
        """Compare the input of a model call with the recorded one. Raises ReplayDivergedError."""
        name, actual = input_name(path, turn), self._present(json.loads(canonical_json(given)))
        self.actual_inputs[name] = actual
        fact = self._facts.get((path, turn))
        if fact is None or self._accepts:
            return
        if name in self._inputs:
            if self._inputs[name] != actual:
                self._diverge(recorder, path, f"model call {turn} of {path}", self._inputs[name], actual)
        elif fact.input_hash and fact.input_hash != digest(given):
            self._diverge(recorder, path, f"model call {turn} of {path}", None, actual)

    def check_call(self, recorder: Recorder, path: str, name: str, arguments: Any) -> None:
        """Compare the name and arguments of a call with the recorded ones. Raises ReplayDivergedError."""
        intent = self._facts.get((path, 0))
        if intent is None or intent.kind is not FactKind.INTENT:
            return
        recorded = json.loads(intent.value)
        expected = {"name": recorded["name"], "arguments": recorded["arguments"]}
        actual = self._present(json.loads(canonical_json({"name": name, "arguments": arguments})))
        if self._present(expected) != actual:
            self._diverge(recorder, path, f"the call {name} ({path})", expected, actual)

    def note_answered(self, recorder: Recorder, path: str, seq: int) -> None:
        """Note an answer from the record. Raises RecordEndedError after the last one if the replay ends there."""
        self._open.discard((path, seq))
        self._answered_at = time.monotonic()
        if self._stops and not self._open:
            self._end(recorder)

    async def refuse_live(self, recorder: Recorder, path: str, what: str) -> None:
        """End the attempt: the code wants to do what is not recorded. Branches beside it are answered first.

        A worker would do it, so in a replay that stops at the end of the record it is not a divergence.
        """
        while self._open and time.monotonic() - self._answered_at < QUIET_SECONDS:  # noqa: ASYNC110 - it also looks at the time
            await asyncio.sleep(0.01)
        recorder.check()
        if (self._is_open or self._stops) and not self._open:
            self._end(recorder)
        if self._stops:
            self.new_step = f"{what} ({path}) is not recorded and would be made, before {_few(self.missed)}"
            self._end(recorder)
        missed = f"; not asked for yet: {_few(self.missed)}" if self._open else ""
        error = ReplayDivergedError(
            f"The replay wants to make {what} ({path}), which the record does not have{missed}.",
            agent_id=recorder.lease.agent_id,
            path=path,
        )
        self.divergence = self.divergence or error
        raise recorder.stop(error)

    def note_new_wait(self) -> None:
        """Note that the attempt ended in a wait that the record does not have, unless the record has ended before."""
        if not self.ended and self.divergence is None and self._open:
            self.ended = True
            self.new_step = (
                f"a wait for a task, an event or a person is not recorded, before {_few(self.missed)}"
            )

    def _end(self, recorder: Recorder) -> None:
        self.ended = True
        raise recorder.stop(RecordEndedError("The replay has come to the end of the record."))

    def _diverge(self, recorder: Recorder, path: str, what: str, expected: Any, actual: Any) -> None:
        error = ReplayDivergedError(
            f"The replay went another way: {what} has another input than was recorded.\n"
            f"{difference(expected, actual)}",
            agent_id=recorder.lease.agent_id,
            path=path,
        )
        self.divergence = self.divergence or error
        raise recorder.stop(error)


def _few(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MAX_PATHS} more" if len(paths) > MAX_PATHS else ""
    return f"{', '.join(paths[:MAX_PATHS])}{more}"


def input_name(path: str, turn: int) -> str:
    """Return the name of a model call's input in a file."""
    return f"{path}:{turn}"


def difference(expected: Any, actual: Any) -> str:
    """Return two JSON values as the lines that differ."""
    if expected is None:
        return f"The record does not hold this input. It is now:\n{_pretty(actual)}"
    lines = list(
        difflib.unified_diff(
            _pretty(expected).splitlines(), _pretty(actual).splitlines(), "recorded", "now", lineterm="", n=2
        )
    )
    more = [f"… {len(lines) - MAX_DIFF_LINES} more lines"] if len(lines) > MAX_DIFF_LINES else []
    return "\n".join([*lines[:MAX_DIFF_LINES], *more])


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _is_unasked(fact: Fact) -> bool:
    """Return True for what the journal answers by itself: a sleep, the wait for an event, a change of the code."""
    return fact.path.startswith("/") or fact.path.rpartition("/")[2].startswith(("sleep#", "event:"))

"""Messages that join a run before one of its model calls, or interrupt it there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from agentexec.conversations.steering import find_joined, join_messages, look_for_arrivals, new_fact
from agentexec.errors import TurnInterruptedError
from agentexec.journal.canonical import digest
from agentexec.journal.facts import Fact, fit_path
from agentexec.runners.openai.turn_session import TurnSession
from agentexec.runtime import RUNTIME

if TYPE_CHECKING:
    from agentexec.runners.openai.run import DurableRun


class Joined(NamedTuple):
    """Messages that joined before a model call, and their place in its input: behind an item."""

    index: int
    item: str | None
    messages: list[Any]


class Steering:
    """Messages of a conversation that join one run.

    The journal has them, with the model call before which they joined: a replay sees them there again. The SDK knows nothing of
    them, so they are put in their place in the input of each later call too, and into the history.
    """

    def __init__(self, run: DurableRun, session: TurnSession) -> None:
        self._run = run
        self._session = session
        self._path = fit_path(f"{run.path}/messages")
        self._applied = 0
        self._joined: list[Joined] = []
        self._again: list[int] | None = None

    async def before_replayed(self, turn: int, given: list[Any]) -> None:
        """Let the messages join again that had joined before a call that is answered from the journal."""
        for fact in self._run.recorder.facts(self._path)[self._applied :]:
            if json.loads(fact.value)["turn"] > turn:
                return
            await self._apply(fact, given)

    async def before_call(self, turn: int, given: list[Any]) -> list[Any]:
        """Return the input of a call that is about to be made, with all messages that have joined.

        Raises TurnInterruptedError if a message interrupts the turn.
        """
        await self.before_replayed(turn, given)
        if self._run.recorder.conversation == self._session.session_id:
            await self._look(turn, given)
        return self._with_messages(given)

    async def is_interrupted(self) -> bool:
        """Return True if a message waits that interrupts the turn: no further call is to begin."""
        recorder, name = self._run.recorder, self._session.session_id
        if recorder.conversation != name:
            return False
        return bool((await recorder.write_with_retry(look_for_arrivals, RUNTIME.engine, name)).interrupts)

    async def _look(self, turn: int, given: list[Any]) -> None:
        recorder, name = self._run.recorder, self._session.session_id
        if self._again is None:
            self._again = await self._dropped() if recorder.repeats else []
        arrivals = await recorder.write_with_retry(look_for_arrivals, RUNTIME.engine, name)
        if arrivals.interrupts:
            raise recorder.stop(TurnInterruptedError(name))
        if not arrivals.joins and not self._again:
            return
        fact = new_fact(self._path, len(recorder.facts(self._path)), turn)
        joined = await recorder.write_with_retry(
            join_messages, RUNTIME.engine, recorder.lease, name, fact, self._again
        )
        if joined is not None:
            recorder.add_fact(joined)
            await self._apply(joined, given)
        self._again = []

    async def _dropped(self) -> list[int]:
        """Return messages that have joined this turn and are not in its journal, which a retry has cut."""
        recorder = self._run.recorder
        joined = await recorder.write_with_retry(
            find_joined, RUNTIME.engine, self._session.session_id, recorder.lease.agent_id
        )
        recorded = {
            message["number"]
            for fact in recorder.facts(self._path)
            for message in json.loads(fact.value)["messages"]
        }
        return [number for number in joined if number not in recorded]

    async def _apply(self, fact: Fact, given: list[Any]) -> None:
        found = json.loads(fact.value)["messages"]
        messages: list[Any] = [{"role": "user", "content": message["text"]} for message in found]
        self._applied += 1
        self._joined.append(Joined(len(given), _name(given[-1]) if given else None, messages))
        await self._session.add_items(messages)

    def _with_messages(self, given: list[Any]) -> list[Any]:
        items = [*given]
        for joined in reversed(self._joined):
            place = _place(given, joined)
            items[place:place] = joined.messages
        return items


def _place(given: list[Any], joined: Joined) -> int:
    """Return the index in an input at which messages belong: where it was, or behind the same item, which may have moved."""
    if joined.item is None:
        return 0
    if joined.index <= len(given) and _name(given[joined.index - 1]) == joined.item:
        return joined.index
    # A filter of the application may have left out items before it.
    places = (place for place in range(len(given), 0, -1) if _name(given[place - 1]) == joined.item)
    return next(places, 0)


def _name(item: Any) -> str:
    return digest(item)

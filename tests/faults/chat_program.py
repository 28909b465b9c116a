"""Kills at every instant of a conversation, and a report of what the next workers made of each.

`python -m tests.faults.chat_program FOLDER [--target TARGET] [--every N] [CASE ...]` prints one JSON object for each case. Every
attempt is a process forked from this one, which claims its turn from the queue. An instant is the moment before or after a
message is sent or taken, an item is added to the history, a fact is appended to the journal, an ending is written, or the
queue is told of a task or of its end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import select

import agentexec as ax
from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.activity.changes.stores import record_store
from agentexec.client import conversation as client
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.journal.store import JournalStore
from agentexec.registry import Registry
from agentexec.runners.openai import steering, turn_session
from agentexec.runners.openai.runner import OpenAIRunner
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from agentexec.worker import turn_start
from agentexec.worker.attempt import execute_attempt
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.lease_recovery import LeaseRecovery
from tests.faults.chat_places import Places, PlacesOnServers
from tests.faults.crash_program import NEVER, World, forked
from tests.servers import Postgres, Valkey

MODES = ("run", "run_streamed")
SHAPES = ("queue", "steer", "interrupt")
TARGETS = ("embedded", "postgres", "valkey+postgres")
ID = "user:1"
WORKER = "worker:1"
IDLE = 9
"""Exit code of a worker that has nothing to do."""


class Answerer(Model):
    """Model that calls a tool for each new message, and then answers it; it notes each request."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _script(self, input: list[Any]) -> ScriptedModel:
        self._world.write(input=texts_of(input))
        texts = [item["content"] for item in input if item.get("role") == "user"]
        answered = sum(item.get("type") == "function_call_output" for item in input)
        if answered < len(texts):
            output: Any = function_call("look", {"about": texts[-1]}, call_id=f"c{len(texts)}")
        else:
            output = assistant_message(f"About {texts[-1]}.")
        usage = Usage(requests=1, input_tokens=1, output_tokens=1, total_tokens=2)
        return ScriptedModel([ModelResponse(output=[output], usage=usage, response_id=None)])

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return await self._script(input_of(args, kwargs)).get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        async for event in self._script(input_of(args, kwargs)).stream_response(*args, **kwargs):
            yield event


def input_of(args: Any, kwargs: Any) -> list[Any]:
    """Return the items of a model call's input."""
    items: list[Any] = kwargs["input"] if "input" in kwargs else args[1]
    return items


def texts_of(items: list[Any]) -> list[str]:
    """Return each item in short."""
    return [text_of(item) for item in items]


def text_of(item: Any) -> str:
    content = item.get("content")
    if item.get("role") == "user":
        return str(content)
    return f"{item.get('type')}:{item.get('call_id') or content[0]['text']}"


class Case:
    """A conversation that is killed at each of its instants; complaints are sentences."""

    def __init__(self, places: Places, template: Path, case: tuple[str, str], every: int) -> None:
        self.shape, self.mode = case
        self._places = places
        self._template = template
        self._every = every
        self._before: list[Path] = []
        """Copies of the place from before each process."""
        self._complaints: list[str] = []
        self._kills = 0

    def run(self) -> dict[str, Any]:
        place = self._places.copy(self._template)
        counts = self._work(place, [], keeps=True)
        reference = self._outcome(place)
        self._check("without a kill", place)
        for number, count in enumerate(counts):
            for kill_at in range(1 + number % self._every, count + 1, self._every):
                what = f"killed at instant {kill_at} of process {number + 1}"
                self._try(what, self._before[number], [kill_at], reference, sent=number > 0)
        self._try("killed again and again", self._template, [3] * (sum(counts) // 3), reference)
        for old in (place, *self._before):
            self._places.remove(old)
        return {"kills": self._kills, "instants": sum(counts), "complaints": self._complaints}

    def _try(
        self, what: str, before: Path, kills: list[int], reference: dict[str, Any], *, sent: bool = False
    ) -> None:
        place = self._places.copy(before)
        self._work(place, kills, sent=sent)
        outcome = self._outcome(place)
        if outcome != reference:
            self._complaints.append(f"{what}: {outcome} instead of {reference}")
        self._check(what, place)
        self._places.remove(place)

    def _work(self, place: Path, kills: list[int], *, sent: bool = False, keeps: bool = False) -> list[int]:
        """Send the messages, and work until no turn is left; return the instants of each process."""
        counts: list[int] = []
        works = [work] if sent else [send, work]
        while works:
            if keeps:
                self._before.append(self._places.copy(place))
            kill_at = kills[len(counts)] if len(counts) < len(kills) else NEVER
            code = self._forked(works[0], place, kill_at, self.shape, self.mode)
            counts.append(int((place / "instants").read_text()) if code in (0, IDLE) else kill_at)
            if code == -signal.SIGKILL:
                self._kills += 1
            elif code == IDLE or works[0] is send:
                del works[0]
            else:
                assert code == 0, code
        return counts

    def _forked(self, work: Any, place: Path, *arguments: Any) -> int:
        with self._places.in_use(place):
            return forked(work, self._places, place, *arguments)

    def _outcome(self, place: Path) -> dict[str, Any]:
        self._forked(report, place)
        outcome: dict[str, Any] = json.loads((place / "report").read_text())
        return outcome

    def _check(self, what: str, place: Path) -> None:
        lines = [json.loads(line) for line in (place / "ledger").read_text().splitlines()]
        running: dict[str, Any] = {}
        for line in lines:
            if "turn" in line:
                running = line
            elif "input" in line and running.get("pid") != line["pid"]:
                self._complaints.append(f"{what}: a model call outside of the turn that ran last")
        taken = Counter((line["turn"], line["text"]) for line in lines if "turn" in line)
        if len({turn for turn, _ in taken}) != len(taken):
            self._complaints.append(f"{what}: a turn has had two messages, {taken}")


def patch(world: World) -> None:
    """Make an instant before and after each write."""

    def instants(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            world.instant()
            value = call(*arguments, **options)
            world.instant()
            return value

        setattr(owner, name, wrapped)

    for owner, name in (
        (JournalStore, "append_together"),
        (type(record_store()), "record"),
        (turn_session, "add_items"),
        (steering, "join_messages"),
        (turn_start, "take_message"),
        (client.Conversation, "_record"),
        (type(RUNTIME.backend), "push"),
        (type(RUNTIME.backend), "finish"),
    ):
        instants(owner, name)


def send(places: Places, place: Path, kill_at: int, shape: str, mode: str) -> int:
    """Send the messages of two senders in turn; whoever is killed sends again, with the same keys."""
    places.use(place)
    world = World(place, kill_at)
    patch(world)
    chat = ax.conversation(ID, task="answer")
    for text in ("A1", "B1", "A2") if shape == "queue" else ("A1", "B1"):
        chat.send_sync(text, idempotency_key=text)
    (place / "instants").write_text(str(world.instants))
    return 0


def work(places: Places, place: Path, kill_at: int, shape: str, mode: str) -> int:
    """Run one attempt, as a worker does: of the turn that was running, or else of the next one."""
    places.use(place)
    world = World(place, kill_at)
    # As the reconciler does, after whoever died before.
    LeaseRecovery(RUNTIME, CONF).recover(WORKER, "was killed")
    IndexRepair(RUNTIME, CONF).add_all()
    queue = CONF.queue_name
    claimed = RUNTIME.backend.claim(queue, WORKER, limit=1, low_quota=0, lease_seconds=600).leases
    if not claimed:
        (place / "instants").write_text("0")
        return IDLE
    patch(world)
    registry = Registry()

    async def answer(agent_id: UUID, context: ax.Turn) -> str:
        world.write(turn=str(agent_id), text=context.text)
        agent = Agent("Agent", model=Answerer(world), tools=[make_tool(world, shape)])
        runner = OpenAIRunner(agent_id)
        if mode == "run":
            result: Any = await runner.run(agent, context.text, session=context.session)
        else:
            result = await runner.run_streamed(agent, context.text, session=context.session)
            async for _ in result.stream_events():
                pass
        return str(result.final_output)

    registry.add("answer", answer)
    store = record_store()
    terms = StartTerms(utc_now(), "", CONF.max_crashes)
    admissions = store.admit(claimed, terms, suspect_running=False)
    ending = asyncio.run(
        execute_attempt(registry, admissions.started[0], ThreadPoolExecutor(1), is_stopping=lambda: False)
    )
    assert ending.error is None, ending.error
    assert not store.record([], [ending], now=utc_now(), result_ttl=60).refused
    RUNTIME.backend.finish(queue, claimed)
    (place / "instants").write_text(str(world.instants))
    return 0


def make_tool(world: World, shape: str) -> Any:
    @ax.tool_policy("idempotent")
    @function_tool
    async def look(about: str) -> str:
        if shape != "queue" and about == "A1":
            await ax.conversation(ID).send("A2", if_busy=shape)
        return f"seen {about}"

    return look


def report(places: Places, place: Path) -> int:
    """Write what has become of the conversation."""
    places.use(place)
    chat = ax.conversation(ID)
    messages = chat.messages_sync()
    outcome = {
        "messages": [(message.text, message.state) for message in messages],
        "results": [result_of(chat, message) for message in messages],
        "history": texts_of([entry.item for entry in chat.history_sync()]),
        "status": [str(status) for status in statuses()],
    }
    (place / "report").write_text(json.dumps(outcome))
    return 0


def result_of(chat: ax.Conversation, message: ax.ConversationMessage) -> str:
    try:
        return str(chat.result_sync(message))
    except ax.TaskCanceledError:
        return "interrupted"


def statuses() -> list[Status]:
    with reading(RUNTIME.engine) as connection:
        query = select(ACTIVITY.c.status).order_by(ACTIVITY.c.agent_id)
        return list(connection.execute(query).scalars())


def make_tables(places: Places, place: Path) -> int:
    places.use(place)
    ax.Base.metadata.create_all(RUNTIME.engine)
    RUNTIME.close()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", choices=TARGETS, default="embedded")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("cases", nargs="*")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        places = Places(arguments.folder)
        if arguments.target != "embedded":
            broker = stack.enter_context(Valkey()) if "valkey" in arguments.target else None
            places = PlacesOnServers(arguments.folder, stack.enter_context(Postgres(fsync=False)), broker)
        template = places.new()
        assert forked(make_tables, places, template) == 0
        gc.freeze()
        for case in itertools.product(SHAPES, MODES):
            if not arguments.cases or "-".join(case) in arguments.cases:
                found = Case(places, template, case, arguments.every).run()
                print(json.dumps({"case": "-".join(case), **found}), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Kills at every instant of durable runs, and a report of what the next worker made of each.

`python -m tests.faults.crash_program FOLDER [--every N] [CASE ...]` prints one JSON object for each case. The program itself only imports;
every attempt is a process forked from it, so that hundreds of real SIGKILLs take seconds. An instant is the moment
before or after a journal append or a write to the session. Appends of calls that run at the same time may share a
transaction, so a run can have fewer instants than the one that was measured; a kill it never reached is "missed".
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import shutil
import signal
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

from agents import (
    Agent,
    ApplyPatchTool,
    GuardrailFunctionOutput,
    Model,
    ModelResponse,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    ShellTool,
    SQLiteSession,
    Usage,
    function_tool,
    input_guardrail,
    output_guardrail,
)
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing.processors import default_exporter
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.responses import ResponseUsage
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session as DatabaseSession

import agentexec as ax
from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.new_tasks import NewTask, activity_rows
from agentexec.activity.changes.statements import ACTIVITY, INSERT_ACTIVITY
from agentexec.activity.changes.stores import record_store
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.journal import verdicts
from agentexec.journal.facts import FactKind
from agentexec.journal.models import JournalEntry
from agentexec.journal.store import JournalStore
from agentexec.payloads.sealing import unseal
from agentexec.registry import Registry
from agentexec.runners.openai import background_waits
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from agentexec.worker.attempt import execute_attempt
from tests.faults.crash_sandbox import sandbox_agent, sandbox_config, use_folder, workspace_left
from tests.local_items import patch_call, shell_call, streamed
from tests.responses_server import Behavior, ledger_of, message, responses_process, tool_call

MODES = ("run", "run_streamed")
SHAPES = ("handoff", "nested", "parallel", "guardrail", "approval", "local", "sandbox", "background")
AGENT_ID = UUID(int=7)
NEVER = 10**9
LOCAL_CALLS = ("shell_call", "apply_patch_call")
USED = ResponseUsage.model_validate(
    {
        "input_tokens": 100,
        "output_tokens": 10,
        "total_tokens": 110,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
)
WAITING = 9
"""Exit code of an attempt that waits for a person."""


class World:
    """State that survives the process: a ledger of lines, the database and the session."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.folder = folder
        self._kill_at = kill_at
        self._instants = 0

    def instant(self, what: str = "") -> None:
        self._instants += 1
        if self._instants == self._kill_at:
            self.write(killed=what)
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def instants(self) -> int:
        return self._instants

    def write(self, **line: Any) -> None:
        file = os.open(self.folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{json.dumps({'pid': os.getpid(), **line})}\n".encode())
        os.close(file)


class Actor(Model):
    """Model that answers by its input and notes each request."""

    def __init__(self, world: World, name: str, turns: list[list[Any]]) -> None:
        self._world = world
        self._name = name
        self._turns = turns

    def _script(self, input: Any, *, is_streamed: bool = False) -> ScriptedModel:
        asked = as_json(input)
        items = input if isinstance(input, list) else []
        known = {item.get("call_id") for item in items} - {None}
        number = next(
            n for n, turn in enumerate(self._turns) if getattr(turn[0], "call_id", None) not in known
        )
        self._world.write(model=f"{self._name} {number}", input=asked)
        if is_streamed and self._turns[number][0].type in LOCAL_CALLS:
            # The SDK's scripted model does not stream these by itself.
            return ScriptedModel([streamed(self._turns[number], USED, f"r_{self._name}_{number}")])
        usage = Usage(requests=1, input_tokens=100, output_tokens=10, total_tokens=110)
        turn = ModelResponse(output=self._turns[number], usage=usage, response_id=f"r_{self._name}_{number}")
        return ScriptedModel([turn])

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        input = kwargs["input"] if "input" in kwargs else args[1]
        return await self._script(input).get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        input = kwargs["input"] if "input" in kwargs else args[1]
        async for event in self._script(input, is_streamed=True).stream_response(*args, **kwargs):
            yield event


class Session(SQLiteSession):
    """Session in a file, with an instant before and after each write."""

    world: World

    async def add_items(self, items: Any) -> None:
        self.world.instant()
        await super().add_items(items)
        self.world.instant()


def as_json(items: Any) -> str:
    """Return items of a history as text; some are models of the API."""
    return json.dumps(items, default=lambda item: item.model_dump(exclude_unset=True))


def tools(world: World) -> list[Any]:
    @ax.tool_policy("idempotent")
    @function_tool
    async def slow(topic: str) -> dict[str, Any]:
        world.write(tool=topic, key=ax.idempotency_key())
        await asyncio.sleep(0)
        return {"topic": topic, "words": [len(topic), 1.5]}

    @ax.tool_policy("idempotent")
    @function_tool
    def plain(topic: str) -> str:
        world.write(tool=topic, key=ax.idempotency_key())
        return f"{topic}: 42"

    return [slow, plain]


def guarded_tool(world: World) -> Any:
    @ax.tool_policy("idempotent")
    @function_tool(needs_approval=True)
    async def send(topic: str) -> str:
        world.write(tool=topic, key=ax.idempotency_key())
        return f"sent {topic}"

    return send


BACKGROUND_TURNS = [
    [tool_call("slow", "b1", topic="b1")],
    [tool_call("plain", "b2", topic="b2")],
    [message("Done.")],
]
IN_WINDOW = "a response has begun, and its id is not recorded"


def background_model(folder: Path) -> OpenAIResponsesModel:
    """Return a model that a server answers in the background, with a path of its own for the folder."""
    client = AsyncOpenAI(
        base_url=f"{os.environ['RESPONSES_URL']}/{folder.parent.name}/{folder.name}",
        api_key="k",
        http_client=DefaultAsyncHttpxClient(verify=False),
    )
    return OpenAIResponsesModel("gpt", client)


def calls_of(folder: Path) -> int:
    """Return the number of responses that were asked for under the folder's path."""
    path = f"/v1/{folder.parent.name}/{folder.name}/responses"
    return sum(line["path"] == path for line in ledger_of(os.environ["RESPONSES_URL"], "create"))


class Editor:
    """Editor of an apply-patch tool, which notes each operation."""

    def __init__(self, world: World) -> None:
        self._world = world

    def update_file(self, operation: Any) -> str:
        self._world.write(tool=operation.path, key=ax.idempotency_key())
        return f"{operation.path} is changed"

    def delete_file(self, operation: Any) -> str:
        self._world.write(tool=operation.path, key=ax.idempotency_key())
        raise FileNotFoundError(operation.path)

    create_file = update_file


def local_tools(world: World) -> list[Any]:
    async def execute(request: Any) -> str:
        command = request.data.action.commands[0]
        world.write(tool=command, key=ax.idempotency_key())
        return f"{command} is done"

    mark = ax.tool_policy("idempotent")
    return [mark(ShellTool(executor=execute)), mark(ApplyPatchTool(editor=Editor(world)))]


def call(name: str, call_id: str, **arguments: Any) -> Any:
    return function_call(name, arguments, call_id=call_id)


def look(tool: str, call_id: str) -> Any:
    return call(tool, call_id, topic=call_id)


def say(text: str) -> list[Any]:
    return [assistant_message(text)]


def make_agent(shape: str, world: World) -> Agent[Any]:
    if shape == "handoff":
        first = Agent("First", tools=tools(world))
        second = Agent("Second", tools=tools(world), handoffs=[first])
        first.handoffs = [second]
        first.model = Actor(
            world, "First", [[look("slow", "a1")], [call("transfer_to_second", "a2")], say("Done")]
        )
        second.model = Actor(world, "Second", [[look("plain", "b1")], [call("transfer_to_first", "b2")]])
        return first
    if shape == "nested":
        inner = Agent("Inner", tools=tools(world))
        inner.model = Actor(world, "Inner", [[look("slow", "i1"), look("plain", "i2")], say("Inside")])
        ask = inner.as_tool("ask", "Ask the inner agent.")
        outer = Agent("Outer", tools=[ask, *tools(world)])
        outer.model = Actor(
            world,
            "Outer",
            [[call("ask", "o1", input="What?"), look("plain", "o2")], [look("slow", "o3")], say("Done")],
        )
        return outer
    if shape == "parallel":
        agent = Agent("Agent", tools=tools(world))
        agent.model = Actor(
            world,
            "Agent",
            [
                [look("slow", "p1"), look("plain", "p2"), look("slow", "p3")],
                [look("plain", "p4")],
                say("Done"),
            ],
        )
        return agent
    if shape == "local":
        agent = Agent("Agent", tools=[*local_tools(world), *tools(world)])
        agent.model = Actor(
            world,
            "Agent",
            [
                [shell_call("l1", "make"), patch_call("l2", "create_file", "a.txt", diff="+a")],
                [
                    patch_call("l3", "delete_file", "b.txt"),
                    shell_call("l4", "make test"),
                    look("plain", "l5"),
                ],
                say("Done"),
            ],
        )
        return agent
    if shape == "background":
        return Agent("Agent", model=background_model(world.folder), tools=tools(world))
    if shape == "sandbox":
        turns = [[look("run", "s1")], [look("run", "s2")], [look("run", "s3")], say("Done")]
        return sandbox_agent(world, Actor(world, "Coder", turns))
    if shape == "approval":
        inner = Agent("Inner", tools=[guarded_tool(world)])
        inner.model = Actor(world, "Inner", [[look("send", "i1")], say("Inside")])
        ask = inner.as_tool("ask", "Ask the inner agent.")
        agent = Agent("Agent", tools=[ask, guarded_tool(world), *tools(world)])
        agent.model = Actor(
            world,
            "Agent",
            [
                [look("slow", "a1"), look("send", "a2"), call("ask", "a3", input="What?")],
                [look("send", "a4_no"), look("plain", "a5"), look("send", "a6")],
                say("Done"),
            ],
        )
        return agent
    judge = Agent("Judge", tools=tools(world))
    judge.model = Actor(world, "Judge", [[look("plain", "j1")], say("Fine")])
    critic = Agent("Critic", model=Actor(world, "Critic", [say("Good")]))

    @input_guardrail
    async def judged(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput((await Runner.run(judge, "Is it fine?")).final_output, False)

    @output_guardrail
    async def criticised(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput((await Runner.run(critic, output)).final_output, False)

    agent = Agent("Agent", tools=tools(world), input_guardrails=[judged], output_guardrails=[criticised])
    agent.model = Actor(world, "Agent", [[look("slow", "g1")], say("Done")])
    return agent


async def handle(world: World, shape: str, mode: str, with_session: bool) -> dict[str, Any]:
    """Run the case, as the task's handler."""
    session = None
    if with_session:
        session = Session("s", world.folder / "session.db")
        session.world = world
    runner, agent = ax.OpenAIRunner(AGENT_ID, background=shape == "background"), make_agent(shape, world)
    config = sandbox_config(world.folder) if shape == "sandbox" else None
    if mode == "run":
        result: Any = await runner.run(agent, "Go.", session=session, run_config=config)
    else:
        result = await runner.run_streamed(agent, "Go.", session=session, run_config=config)
        async for _ in result.stream_events():
            pass
    used = result.context_wrapper.usage
    return {
        "history": as_json(result.to_input_list()),
        "last_agent": result.last_agent.name,
        "session": as_json(await session.get_items()) if session else None,
        "usage": [used.requests, used.input_tokens, used.output_tokens],
    }


def run_attempt(folder: Path, epoch: int, kill_at: int, case: tuple[str, str, bool]) -> int:
    """Run one attempt in this process, from admission to end, and write its findings and result to the folder."""
    world = World(folder, kill_at)
    shape, mode, with_session = case
    use_folder(folder)
    ax.configure(database_url=f"sqlite:///{folder / 'test.db'}")
    lease = Lease(AGENT_ID, epoch)

    def killed(call: Any) -> Any:
        def killed_call(*arguments: Any) -> Any:
            kinds = {getattr(argument, "kind", None) for argument in arguments}
            world.instant(IN_WINDOW if FactKind.BACKGROUND in kinds else "")
            value = call(*arguments)
            world.instant()
            return value

        return killed_call

    JournalStore.append, verdicts.ask = killed(JournalStore.append), killed(verdicts.ask)
    with reading(RUNTIME.engine) as connection:
        kinds = connection.scalars(select(JournalEntry.kind)).all()
    world.write(attempt=epoch, responses=kinds.count("model"), outcomes=kinds.count("outcome"))
    registry = Registry()

    async def handler(agent_id: UUID, context: dict[str, Any]) -> dict[str, Any]:
        return await handle(world, shape, mode, with_session)

    registry.add("case", handler)
    store = record_store()
    terms = StartTerms(utc_now(), "", max_crashes=1000)
    admissions = store.admit([lease], terms, suspect_running=False)
    ending = asyncio.run(
        execute_attempt(registry, admissions.started[0], ThreadPoolExecutor(1), is_stopping=lambda: False)
    )
    assert not store.record([], [ending], now=utc_now(), result_ttl=60).refused
    (folder / "instants").write_text(str(world.instants))
    if ending.awaited_kinds:
        return WAITING
    with reading(RUNTIME.engine) as connection:
        row = connection.execute(select(ACTIVITY.c.requests, ACTIVITY.c.input_tokens, ACTIVITY.c.usage)).one()
    outcome = {
        "error": ending.error,
        "recorded": [row.requests, row.input_tokens, row.usage],
        "workspace": workspace_left(folder) if shape == "sandbox" else None,
    }
    (folder / "outcome").write_text(
        json.dumps({**outcome, "result": json.loads(unseal(ending.result or "null"))})
    )
    return 0


def answer(folder: Path) -> int:
    """Decide every call that waits: reject those that end in "no", change the arguments of one and make a rule with it."""
    ax.configure(database_url=f"sqlite:///{folder / 'test.db'}")
    with DatabaseSession(RUNTIME.engine) as db:
        waiting = ax.approvals.list(db)
    for question in waiting:
        if question.call_id.endswith("no"):
            assert ax.reject_sync(question.agent_id, question.call_id, message="Better not.")
        elif question.call_id == "a2":
            rule = ax.AllLikeIt(["topic=a6*"])
            changed = {"topic": "a6 instead"}
            assert ax.approve_sync(question.agent_id, question.call_id, arguments=changed, rule=rule)
        else:
            assert question.call_id != "a6", "the rule answers"
            assert ax.approve_sync(question.agent_id, question.call_id)
    return 0 if waiting else 1


def make_database(folder: Path) -> None:
    ax.configure(database_url=f"sqlite:///{folder / 'test.db'}")
    ax.Base.metadata.create_all(RUNTIME.engine)
    task = NewTask(AGENT_ID, "case", "{}", "q", 1, None, None, None, "")
    with writing(RUNTIME.engine) as connection:
        connection.execute(INSERT_ACTIVITY, activity_rows([task], utc_now()))
    RUNTIME.close()


def forked(work: Any, *arguments: Any) -> int:
    """Run something in a forked process; return its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            code = work(*arguments)
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Case:
    """All kill points of one kind of run; complaints are sentences."""

    def __init__(self, folder: Path, template: Path, case: tuple[str, str, bool], every: int) -> None:
        self.case = case
        self._folder = folder
        self._template = template
        self._every = every
        self._numbers = itertools.count()
        self.kills = 0
        self.missed = 0
        self.complaints: list[str] = []

    def run(self) -> dict[str, Any]:
        place = self._place()
        instants = [count for count, _ in self._attempts(place, [])]
        self._reference = self._outcome(place)
        assert self._reference["error"] is None, self._reference["error"]
        lines = self._ledger(place)
        self._inputs = {line["model"]: line["input"] for line in lines if "model" in line}
        self._keys = {line["tool"]: line["key"] for line in lines if "tool" in line}
        for number, count in enumerate(instants):
            for kill_at in range(1 + number % self._every, count + 1, self._every):
                what = f"killed at instant {kill_at} of attempt {number + 1}"
                self._try(what, [*[NEVER] * number, kill_at])
        # Every attempt gets exactly as far as its first append.
        self._try("killed after every single append", [2] * sum(instants))
        shutil.rmtree(self._folder)
        return {
            "kills": self.kills,
            "missed": self.missed,
            "instants": sum(instants),
            "complaints": self.complaints,
        }

    def _attempts(self, place: Path, kills: list[int]) -> Iterator[tuple[int, int]]:
        """Run attempts to the end, killed as told, and yield the instants and the exit code of each."""
        for epoch in itertools.count(1):
            kill_at = kills[epoch - 1] if epoch <= len(kills) else NEVER
            code = forked(run_attempt, place, epoch, kill_at, self.case)
            yield int((place / "instants").read_text()) if code in (0, WAITING) else kill_at, code
            if code == WAITING:
                assert forked(answer, place) == 0
            elif code != -signal.SIGKILL:
                return

    def _try(self, what: str, kills: list[int]) -> None:
        place, died, counts = self._place(), 0, []
        for count, code in self._attempts(place, kills):
            died += code == -signal.SIGKILL
            counts.append(count)
        if code != 0:
            self.complaints.append(f"{what}: the last attempt ended with {code}")
            return
        self.kills += died
        if died == 0:
            # The last kill is the one tried: the others are none, or the attempt gets as far as its first append.
            if len(counts) >= len(kills) and counts[len(kills) - 1] < kills[-1]:
                self.missed += 1
            else:
                self.complaints.append(f"{what}: nothing was killed")
        self.complaints += [f"{what}: {complaint}" for complaint in self._faults(place)]

    def _faults(self, place: Path) -> list[str]:
        outcome, reference, faults = self._outcome(place), self._reference, []
        if outcome["result"] != reference["result"]:
            return [f"the result is {outcome}, not {reference}"]
        if outcome["recorded"] != reference["recorded"]:
            faults.append(f"usage is {outcome['recorded']}, not {reference['recorded']}")
        if outcome["workspace"] != reference["workspace"]:
            faults.append(f"the workspace is {outcome['workspace']}, not {reference['workspace']}")
        known: dict[str, Any] = {"responses": 0, "outcomes": 0}
        done: dict[str, list[str]] = {}
        lines = self._ledger(place)
        if self.case[0] == "background":
            made, windows = calls_of(place), [line for line in lines if line.get("killed") == IN_WINDOW]
            if made != len(BACKGROUND_TURNS) + len(windows):
                faults.append(f"{made} calls were made")
            return faults
        for line in lines:
            if "attempt" in line:
                known, done = line, {"model": [], "tool": []}
            elif "killed" in line:
                continue
            elif "model" in line:
                done["model"].append(line["model"])
                if line["input"] != self._inputs[line["model"]]:
                    faults.append(
                        f"{line['model']} was asked {line['input']}, not {self._inputs[line['model']]}"
                    )
            else:
                done["tool"].append(line["tool"])
                if line["key"] != self._keys[line["tool"]]:
                    faults.append(f"tool {line['tool']} had another key")
        # The last attempt did what was not recorded, and nothing else.
        if len(done["model"]) != len(self._inputs) - known["responses"]:
            faults.append(f"with {known['responses']} responses recorded, models were called {done['model']}")
        if len(done["tool"]) != len(self._keys) - known["outcomes"]:
            faults.append(f"with {known['outcomes']} outcomes recorded, tools were run {done['tool']}")
        return faults

    def _place(self) -> Path:
        place = self._folder / str(next(self._numbers))
        place.mkdir(parents=True)
        shutil.copy(self._template, place / "test.db")
        return place

    def _outcome(self, place: Path) -> dict[str, Any]:
        return json.loads((place / "outcome").read_text())

    def _ledger(self, place: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (place / "ledger").read_text().splitlines()]


async def warm_up() -> None:
    """Create what the SDK creates on first use, which would take a third of a second in every attempt."""

    @function_tool
    async def tool() -> str:
        return ""

    for mode in MODES:
        turns = [[call("tool", "w1")], say("Done"), [call("transfer_to_b", "w2")], say("Done")]
        first, second = Agent("A", model=ScriptedModel(turns[:2]), tools=[tool]), Agent("B")
        handing = Agent("A", model=ScriptedModel(turns[2:3]), handoffs=[second])
        second.model = ScriptedModel(turns[3:])
        for agent in (first, handing):
            runner, config = ax.OpenAIRunner(AGENT_ID), RunConfig(tracing_disabled=True)
            if mode == "run":
                await runner.run(agent, "Go.", run_config=config)
            else:
                result = await runner.run_streamed(agent, "Go.", run_config=config)
                async for _ in result.stream_events():
                    pass


def prepare_forks() -> None:
    """Do the work that every attempt would repeat, and prevent garbage collections that would copy all shared memory."""
    default_exporter()
    create_engine("sqlite://")
    asyncio.run(warm_up())
    gc.collect()
    gc.freeze()
    gc.disable()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--every", type=int, default=1, help="instants from one kill to the next")
    options = parser.parse_args()
    folder = options.folder
    prepare_forks()
    template = folder / "template"
    template.mkdir()
    assert forked(make_database, template) == 0
    cases = list(itertools.product(SHAPES, MODES, (False, True)))
    background_waits.SHORTEST_PAUSE = 0.01
    with responses_process(Behavior({"gpt": BACKGROUND_TURNS}, seconds=0.03)) as url:
        os.environ["RESPONSES_URL"] = url
        for case in cases:
            name = "-".join((case[0], case[1], "session" if case[2] else "alone"))
            if options.cases and name not in options.cases:
                continue
            report = Case(folder / name, template / "test.db", case, options.every).run()
            print(json.dumps({"case": name, **report}), flush=True)


if __name__ == "__main__":
    main()

"""The SDK's tools that act on this machine: recorded like function tools, with policies."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    Computer,
    ComputerTool,
    CustomTool,
    LocalShellTool,
    RunHooks,
    Runner,
    ShellCallOutcome,
    ShellCommandOutput,
    ShellResult,
    ShellTool,
)
from agents.editor import ApplyPatchResult
from agents.testing import ScriptedModel, assistant_message
from openai.types.responses import (
    ResponseComputerToolCall,
    ResponseCustomToolCall,
)
from openai.types.responses.response_output_item import LocalShellCall

import agentexec as ax
from agentexec.errors import WaitingForApproval
from agentexec.journal.attempt_approvals import AttemptApprovals
from agentexec.journal.questions import REFUSED_MESSAGE
from agentexec.journal.recorder import Policy
from agentexec.journal.scopes import SCOPE
from agentexec.runners.openai.tools import INTERRUPTED_MESSAGE
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask
from tests.local_items import patch_call, shell_call, streamed

Mode = Literal["run", "run_streamed"]

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])

SHELL = shell_call("call_shell", "make", "make test")
LOCAL_SHELL = LocalShellCall(
    type="local_shell_call",
    id="item_local",
    call_id="call_local",
    action={"type": "exec", "command": ["ls"], "env": {"B": "1", "A": "2"}},  # type: ignore[arg-type]
    status="completed",
)
PATCH = patch_call("call_patch", "create_file", "a.txt", diff="+a")
BAD_PATCH = patch_call("call_bad", "delete_file", "b.txt")
CUSTOM = ResponseCustomToolCall(
    type="custom_tool_call", call_id="call_custom", name="query", input="select 1"
)
COMPUTER = ResponseComputerToolCall(
    type="computer_call",
    id="item_computer",
    call_id="call_computer",
    actions=[{"type": "click", "x": 1, "y": 2, "button": "left"}, {"type": "type", "text": "hello"}],  # type: ignore[list-item]
    pending_safety_checks=[],
    status="completed",
)
DONE = assistant_message("Done.")


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


class Machine:
    """A machine for the tools to act on, which counts what was really done. It is the apply-patch tool's editor, too."""

    def __init__(self, policy: Policy | None = "idempotent") -> None:
        self.did: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = {}
        mark: Any = ax.tool_policy(policy) if policy is not None else lambda tool: tool
        self.tools: list[Any] = [
            mark(ShellTool(executor=self.shell)),
            mark(LocalShellTool(executor=self.local_shell)),
            mark(ApplyPatchTool(editor=self)),
            mark(CustomTool(name="query", description="A query.", on_invoke_tool=self.query)),
            mark(ComputerTool(computer=Screen(self))),
        ]

    def act(self, what: str) -> None:
        self.did[what] += 1
        if what != "screenshot":
            self.keys.setdefault(what, set()).add(ax.idempotency_key())

    async def shell(self, request: Any) -> Any:
        self.act("shell")
        await asyncio.sleep(0)
        return ShellResult(
            output=[
                ShellCommandOutput("built", "warning", ShellCallOutcome("exit", 0), "make", {"pid": 7}),
                ShellCommandOutput("", "", ShellCallOutcome("timeout"), "make test"),
            ],
            max_output_length=50,
            provider_data={"host": "local"},
        )

    def local_shell(self, request: Any) -> str:
        self.act("local")
        return "a.txt\n"

    def create_file(self, operation: Any) -> Any:
        self.act(f"create {operation.path}")
        return ApplyPatchResult(status="completed", output=f"created {operation.path}")

    def update_file(self, operation: Any) -> Any:
        self.act(f"update {operation.path}")

    async def delete_file(self, operation: Any) -> Any:
        self.act(f"delete {operation.path}")
        raise FileNotFoundError(f"{operation.path} does not exist")

    def query(self, context: Any, text: str) -> Any:
        self.act("query")
        return {"rows": [1, 2]}


class Screen(Computer):
    """The computer of a machine."""

    environment = "browser"
    dimensions = (10, 10)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def click(self, x: int, y: int, button: str) -> None:  # type: ignore[override]
        self._machine.act("click")

    def type(self, text: str) -> None:
        self._machine.act("type")

    def screenshot(self) -> str:
        self._machine.act("screenshot")
        return f"picture{self._machine.did['screenshot']}"

    def unused(self, *arguments: Any) -> None:
        """Do nothing: the model asks for none of these."""

    double_click = drag = keypress = move = scroll = wait = unused


TURNS: list[list[Any]] = [[SHELL, CUSTOM], [PATCH, BAD_PATCH], [LOCAL_SHELL], [COMPUTER], [DONE]]

EFFECTS = {"shell", "local", "create a.txt", "delete b.txt", "query", "click", "type"}


async def attempt(
    task: ReplayableTask, machine: Machine, mode: Mode, turns: list[Any], **options: Any
) -> Any:
    return await task.attempt(lambda: finish(task, machine, mode, turns, **options))


async def finish(task: ReplayableTask, machine: Machine, mode: Mode, turns: list[Any], **options: Any) -> Any:
    steps = turns if mode == "run" else [streamed(turn) for turn in turns]
    agent = Agent("Operator", model=ScriptedModel(steps), tools=machine.tools)
    runner = ax.OpenAIRunner(task.agent_id)
    if mode == "run":
        return await runner.run(agent, "Go.", **options)
    result = await runner.run_streamed(agent, "Go.", **options)
    async for _ in result.stream_events():
        pass
    return result


def history(result: Any) -> str:
    return json.dumps(result.to_input_list(), default=lambda item: item.model_dump())


@both_modes
async def test_local_tools_are_recorded_and_a_run_cut_at_any_record_ends_alike(
    task: ReplayableTask, mode: Mode
) -> None:
    machine = Machine()
    whole = await attempt(task, machine, mode, TURNS)
    assert {what for what in machine.did if what != "screenshot"} == EFFECTS
    journal = task.journal()
    assert len(journal) == 1 + len(TURNS) + 2 * 6
    replay = Machine()
    assert history(await attempt(task, replay, mode, [])) == history(whole)
    assert not replay.did
    for length in reversed(range(1, len(journal))):
        task.delete_entries([(path, seq) for path, seq, _ in task.journal()[length:]])
        kept = task.journal()
        responses = sum(kind == "model" for _, _, kind in kept)
        outcomes = {path for path, _, kind in kept if kind == "outcome"}
        machine.did.clear()
        result = await attempt(task, machine, mode, TURNS[responses:])
        assert history(result) == history(whole)
        assert sum(machine.did.values()) == len(EFFECTS) + 1 - weight(outcomes)
    assert all(len(keys) == 1 for keys in machine.keys.values())


def weight(outcomes: set[str]) -> int:
    """Return how many effects the recorded outcomes stand for."""
    return sum(3 if path.endswith("call_computer") else 1 for path in outcomes)


@pytest.mark.parametrize("policy", ["fail", None])
async def test_the_policy_decides_about_a_local_call_that_was_cut_off(
    task: ReplayableTask, policy: Policy | None
) -> None:
    for call in (SHELL, CUSTOM, PATCH, LOCAL_SHELL, COMPUTER):
        task, machine = ReplayableTask(), Machine(policy)
        await attempt(task, machine, "run", [[call], [DONE]])
        task.delete_entries([(f"Operator#1/{call.call_id}", 1), ("Operator#1", 2)])
        before = Counter(machine.did)
        result = await attempt(task, machine, "run", [[DONE]])
        if call is COMPUTER:
            # The model can only be shown what the computer shows now.
            assert machine.did - before == Counter(screenshot=1)
            assert "picture2" in history(result)
        else:
            assert machine.did == before
            assert INTERRUPTED_MESSAGE[:50] in history(result)
        silent = Machine(policy)
        replayed = await attempt(task, silent, "run", [])
        assert history(replayed) == history(result)
        assert not silent.did


async def test_the_policy_may_be_set_on_what_the_tool_acts_with(task: ReplayableTask) -> None:
    machine = Machine(None)
    machine.tools = [
        ShellTool(executor=ax.tool_policy("idempotent")(lambda request: machine.act("shell") or "ok"))
    ]
    await attempt(task, machine, "run", [[SHELL], [DONE]])
    task.delete_entries([("Operator#1/call_shell", 1), ("Operator#1", 2)])
    await attempt(task, machine, "run", [[DONE]])
    assert machine.did["shell"] == 2


async def test_a_local_tool_with_an_effect_in_memory_is_called_again(task: ReplayableTask) -> None:
    machine = Machine("in_memory")
    before = await attempt(task, machine, "run", TURNS)
    effects = Counter(machine.did)
    after = await attempt(task, machine, "run", [])
    assert machine.did == effects + effects
    assert history(after) == history(before)


async def test_a_local_tool_writes_in_one_transaction_with_its_outcome(task: ReplayableTask) -> None:
    machine = Machine(None)

    def shell(request: Any) -> str:
        with ax.transaction():
            machine.act("shell")
        return "ok"

    machine.tools = [ax.tool_policy("transactional")(ShellTool(executor=shell))]
    result = await attempt(task, machine, "run", [[SHELL], [DONE]])
    assert "ok" in history(result)
    task.delete_entries([("Operator#1/call_shell", 1), ("Operator#1", 2)])
    await attempt(task, machine, "run", [[DONE]])
    assert machine.did["shell"] == 2


async def test_a_local_call_above_the_size_limit_fails_the_run(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ax.CONF, "max_payload_bytes", 5000)
    machine = Machine(None)
    machine.tools = [ShellTool(executor=lambda request: machine.act("shell") or "x" * 6000)]
    for _ in range(2):
        with pytest.raises(ax.PayloadTooLargeError, match="outcome of shell"):
            await attempt(task, machine, "run", [[SHELL], [DONE]][bool(machine.did) :])
    assert machine.did["shell"] == 1


async def test_a_local_call_that_needs_approval_is_made_once_when_it_is_approved(
    task: ReplayableTask,
) -> None:
    machine = Machine()
    machine.tools = [ShellTool(executor=machine.shell, needs_approval=True)]
    with pytest.raises(WaitingForApproval):
        await attempt(task, machine, "run", [[SHELL], [DONE]])
    assert not machine.did
    assert await ax.approve(task.agent_id, "call_shell")
    result = await attempt(task, machine, "run", [[DONE]])
    assert result.final_output == "Done."
    silent = Machine()
    silent.tools = [ShellTool(executor=silent.shell, needs_approval=True)]
    assert history(await attempt(task, silent, "run", [])) == history(result)
    assert (machine.did["shell"], silent.did["shell"]) == (1, 0)


class Seen(RunHooks[Any]):
    """Hooks that note the tools that they are given."""

    def __init__(self) -> None:
        self.tools: list[Any] = []

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        self.tools.append(tool)


async def test_hooks_get_the_users_own_tools_and_the_plain_sdk_is_unchanged(task: ReplayableTask) -> None:
    machine, seen = Machine(), Seen()
    durable = await attempt(task, machine, "run", TURNS, hooks=seen)
    assert len(seen.tools) == 6
    assert all(any(tool is own for own in machine.tools) for tool in seen.tools)
    agent = Agent("Operator", model=ScriptedModel(TURNS), tools=Machine().tools)
    plain = await Runner.run(agent, "Go.")
    assert history(plain) == history(durable)


async def with_policy(task: ReplayableTask, machine: Machine, tools: Any, turns: list[Any]) -> Any:
    async def handler() -> Any:
        scope = SCOPE.get()
        assert scope is not None
        scope.recorder.approvals = AttemptApprovals(ax.ApprovalPolicy(tools))
        return await finish(task, machine, "run", turns)

    return await task.attempt(handler)


async def test_a_local_tool_that_is_never_called_is_refused(task: ReplayableTask) -> None:
    machine = Machine()
    result = await with_policy(task, machine, {"*": "never"}, TURNS)
    assert not {what for what in machine.did if what != "screenshot"}
    assert history(result).count(REFUSED_MESSAGE) >= 4
    assert history(await with_policy(task, machine, {}, [])) == history(result), "what was refused stays so"
    done = await attempt(ReplayableTask(), machine, "run", TURNS)
    assert history(done) != history(result)


async def test_a_policy_cannot_make_a_local_tool_ask_and_says_so(task: ReplayableTask) -> None:
    machine = Machine()
    with pytest.raises(ax.UsageError, match="needs_approval=True"):
        await with_policy(task, machine, {"shell": "ask"}, [[SHELL], [DONE]])
    assert not machine.did

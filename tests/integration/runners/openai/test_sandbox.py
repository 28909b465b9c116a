"""Sandbox agents: a resumed run continues in the workspace that the killed one had, and nothing is left behind."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import UUID, uuid4

import pytest
from agents import RunConfig, function_tool
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.capabilities import Shell
from agents.sandbox.entries import File
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    UnixLocalSandboxSessionState,
)
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec, resolve_snapshot
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel, Field
from sqlalchemy import select, update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.journal.models import JournalEntry
from agentexec.runners import sandbox_folders
from agentexec.runtime import RUNTIME
from agentexec.worker.sandbox_sweep import SandboxSweep
from tests.attempts import ReplayableTask
from tests.instants import Instants

Mode = Literal["run", "run_streamed"]


@pytest.fixture(autouse=True)
def database(sqlite_tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ax.configure(database_url=sqlite_tables)
    yield
    RUNTIME.close()


@pytest.fixture
def task(database: None) -> ReplayableTask:
    return ReplayableTask()


def shell(*commands: str) -> list[Any]:
    """Return turns that run one command each, and an answer."""
    turns = [
        [function_call("exec_command", {"cmd": command}, call_id=f"call_{number}")]
        for number, command in enumerate(commands, 1)
    ]
    return [*turns, [assistant_message("Done.")]]


def coder(*commands: str, **options: Any) -> SandboxAgent[Any]:
    return SandboxAgent("Coder", model=ScriptedModel(shell(*commands)), capabilities=[Shell()], **options)


def config(tmp_path: Path, client: Any = None, **options: Any) -> RunConfig:
    snapshot = options.pop("snapshot", LocalSnapshotSpec(base_path=tmp_path / "snapshots"))
    sandbox = SandboxRunConfig(client=client or UnixLocalSandboxClient(), snapshot=snapshot, **options)
    return RunConfig(sandbox=sandbox, tracing_disabled=True)


async def finish(
    runner: ax.OpenAIRunner, mode: Mode, agent: Any, run_config: RunConfig, input: Any = "Go."
) -> Any:
    if mode == "run":
        return await runner.run(agent, input, run_config=run_config)
    result = await runner.run_streamed(agent, input, run_config=run_config)
    async for _ in result.stream_events():
        pass
    return result


def outputs(result: Any) -> list[str]:
    return [item.output for item in result.new_items if item.type == "tool_call_output_item"]


LIST = "find . -type f -printf '%p %m ' -exec sha256sum {} + ; find . -type l -printf '%p %l\\n'"


def snapshot_files(tmp_path: Path) -> dict[str, Any]:
    """Return what the snapshots of the finished runs hold: type, mode and content of each path."""
    found: dict[str, Any] = {}
    for number, tar in enumerate(sorted((tmp_path / "snapshots").glob("*.tar"))):
        with tarfile.open(tar) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member).read() if member.isfile() else member.linkname  # ty: ignore[unresolved-attribute]
                found[f"{number} {member.name}"] = (member.type, oct(member.mode), content)
    return found


CHANGES = (
    "printf 'one\\n' > out.txt; mkdir -p deep/er; head -c 100000 /dev/urandom > /dev/null; printf x > deep/er/blob; chmod 600 out.txt",
    "sed -i s/hello/changed/ notes.txt; ln -sf out.txt link; rm -f deep/er/blob",
    "cat out.txt notes.txt; ls -R .",
)
"""Commands that may run twice. One of them changes a file of the manifest."""

MANIFEST = Manifest(entries={"notes.txt": File(content=b"hello\n")})


async def play(
    task: ReplayableTask, mode: Mode, tmp_path: Path, **options: Any
) -> tuple[list[str], dict[str, Any]]:
    """Run an attempt with the changes; return what the model was told, and what is in the snapshots then."""
    agent = coder(*CHANGES, default_manifest=MANIFEST)
    asked = agent.model.calls if hasattr(agent.model, "calls") else []
    runner = ax.OpenAIRunner(task.agent_id, tool_policy="idempotent")
    result = await task.attempt(lambda: finish(runner, mode, agent, config(tmp_path, **options)))
    assert result.final_output == "Done.", asked
    return outputs(result), snapshot_files(tmp_path)


@pytest.mark.parametrize("mode", ["run", pytest.param("run_streamed", marks=pytest.mark.thorough)])
async def test_a_run_cut_at_any_record_ends_in_the_same_workspace_and_leaves_none_behind(
    task: ReplayableTask, mode: Mode, tmp_path: Path
) -> None:
    home, snapshots = sandbox_folders.sandbox_home(), tmp_path / "snapshots"
    instants = Instants(task, tmp_path / "copies", home, snapshots)
    with instants.recording():
        expected = await play(task, mode, tmp_path)
    assert "one\nchanged\n" in expected[0][2]
    assert len(instants) >= 20
    assert list(home.iterdir()) == []
    for instant in range(len(instants)):
        instants.restore(instant)
        told, files = await play(task, mode, tmp_path)
        assert [text.partition("Output:")[2] for text in told] == [
            text.partition("Output:")[2] for text in expected[0]
        ], instant
        assert files == expected[1], instant
        left = list(home.iterdir())
        # A sandbox whose creation was not recorded is found by its name when the task has ended.
        assert len(left) == (1 if instant == 0 else 0), (instant, left)


async def play_commands(
    task: ReplayableTask, tmp_path: Path, model: Any, run_config: RunConfig | None = None, **options: Any
) -> Any:
    """Run an attempt of an agent whose calls may run twice."""
    agent = SandboxAgent("Coder", model=model, capabilities=[Shell()], **options)
    runner = ax.OpenAIRunner(task.agent_id, tool_policy="idempotent")
    return await task.attempt(lambda: finish(runner, "run", agent, run_config or config(tmp_path)))


def left() -> list[Path]:
    home = sandbox_folders.sandbox_home()
    return list(home.iterdir()) if home.exists() else []


class Breaking(ScriptedModel):
    """Model that gives some turns, and then raises."""

    def __init__(self, turns: list[Any], error: BaseException) -> None:
        super().__init__(turns)
        self._left = len(turns)
        self._error = error

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        if self._left == 0:
            raise self._error
        self._left -= 1
        return await super().get_response(*args, **kwargs)


@pytest.mark.parametrize("snapshots", [True, False])
async def test_a_run_that_fails_or_waits_continues_in_its_workspace(
    task: ReplayableTask, tmp_path: Path, snapshots: bool
) -> None:
    options = {} if snapshots else {"snapshot": NoopSnapshotSpec()}
    commands = ("echo one > out.txt", "cat out.txt")
    with pytest.raises(ax.RetryLater):
        await play_commands(
            task, tmp_path, Breaking(shell(*commands)[:1], ax.RetryLater(1)), config(tmp_path, **options)
        )
    with pytest.raises(ValueError, match="no luck"):
        await play_commands(task, tmp_path, Breaking([], ValueError("no luck")), config(tmp_path, **options))
    result = await play_commands(
        task, tmp_path, ScriptedModel(shell(*commands)[1:]), config(tmp_path, **options)
    )
    assert outputs(result)[1].endswith("Output:\none\n")
    assert left() == []
    # A replay of the finished run does not need what is gone.
    replayed = await play_commands(task, tmp_path, ScriptedModel([]), config(tmp_path, **options))
    assert outputs(replayed) == outputs(result)
    assert left() == []


async def test_a_run_that_waited_for_a_person_continues_in_its_workspace(
    task: ReplayableTask, tmp_path: Path
) -> None:
    @function_tool(needs_approval=True)
    def send(to: str) -> str:
        """Send a mail."""
        return "sent"

    turns = shell("echo one > out.txt", "cat out.txt")
    turns.insert(1, [function_call("send", {"to": "x"}, call_id="call_send")])
    with pytest.raises(ax.errors.WaitingForApproval):
        await play_commands(task, tmp_path, ScriptedModel(turns[:2]), tools=[send])
    assert left() == [], "nothing is occupied while a person thinks"
    assert await ax.approve(task.agent_id, "call_send")
    result = await play_commands(task, tmp_path, ScriptedModel(turns[2:]), tools=[send])
    assert outputs(result)[2].endswith("Output:\none\n")
    assert left() == []


@pytest.mark.thorough
async def test_two_runs_that_share_a_sandbox_state_resume_in_it(task: ReplayableTask, tmp_path: Path) -> None:
    """The handler passes the state that the first run left to the second run."""

    async def handler(first: Any, second: Any) -> Any:
        runner = ax.OpenAIRunner(task.agent_id, tool_policy="idempotent")
        writer = SandboxAgent("Writer", model=first, capabilities=[Shell()])
        reader = SandboxAgent("Reader", model=second, capabilities=[Shell()])
        result = await runner.run(writer, "Go.", run_config=config(tmp_path))
        client = UnixLocalSandboxClient()
        saved = client.deserialize_session_state(result._sandbox_resume_state["session_state"])
        return await runner.run(reader, "Go.", run_config=config(tmp_path, client, session_state=saved))

    write, read = shell("echo one > out.txt"), shell("echo two >> out.txt; cat out.txt", "cat out.txt")
    instants = Instants(task, tmp_path / "copies", sandbox_folders.sandbox_home(), tmp_path / "snapshots")
    with instants.recording():
        await task.attempt(lambda: handler(ScriptedModel(write), ScriptedModel(read)))
    read_outcome = next(
        number for number in range(len(instants)) if instants.has(number, "Reader#1/call_1", "outcome")
    )
    for instant in range(read_outcome, len(instants)):
        instants.restore(instant)
        models = [instants.count(instant, name, "model") for name in ("Writer#1", "Reader#1")]
        assert models[0] == 2
        second = ScriptedModel(read[models[1] :])
        result = await task.attempt(lambda second=second: handler(ScriptedModel([]), second))
        assert outputs(result)[1].endswith("Output:\none\ntwo\n"), instant
        assert left() == [], instant


@pytest.mark.thorough
async def test_a_session_of_the_handler_continues_in_the_recorded_workspace(
    task: ReplayableTask, tmp_path: Path
) -> None:
    """The handler creates and removes the session, and reads a file after the run."""

    async def handler(model: Any, *, remove: bool = True) -> tuple[Any, bytes]:
        client = UnixLocalSandboxClient()
        async with await client.create(
            manifest=MANIFEST, snapshot=LocalSnapshotSpec(base_path=tmp_path / "snapshots")
        ) as session:
            roots.append(Path(session.state.manifest.root))
            agent = SandboxAgent("Coder", model=model, capabilities=[Shell()])
            run_config = RunConfig(sandbox=SandboxRunConfig(session=session), tracing_disabled=True)
            runner = ax.OpenAIRunner(task.agent_id, tool_policy="idempotent")
            result = await runner.run(agent, "Go.", run_config=run_config)
            written = (await session.read(Path("out.txt"))).read()
        if remove:
            await client.delete(session)
        return result, written

    roots: list[Path] = []
    instants = Instants(task, tmp_path / "copies")
    turns = shell("echo one > out.txt; echo changed > notes.txt", "cat out.txt notes.txt")
    with instants.recording():
        await task.attempt(lambda: handler(ScriptedModel(turns), remove=False))
    last = len(instants) - 1
    for instant in range(1, last + 1):
        if not instants.has(instant, "Coder#1/call_1", "outcome"):
            continue
        instants.restore(instant)
        given = instants.count(instant, "Coder#1", "model")
        result, written = await task.attempt(
            lambda given=given, instant=instant: handler(ScriptedModel(turns[given:]), remove=instant == last)
        )
        assert outputs(result)[1].endswith("Output:\none\nchanged\n"), instant
        assert written == b"one\n", instant
    assert [root for root in roots if root.exists()] == [], "nothing is left of the sessions of all attempts"
    # The finished run is replayed although the handler has removed its sandbox.
    result, _ = await task.attempt(lambda: handler_without_file(task, ScriptedModel([])))
    assert outputs(result)[1].endswith("Output:\none\nchanged\n")


async def handler_without_file(task: ReplayableTask, model: Any) -> tuple[Any, None]:
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=MANIFEST)
    async with session:
        agent = SandboxAgent("Coder", model=model, capabilities=[Shell()])
        run_config = RunConfig(sandbox=SandboxRunConfig(session=session), tracing_disabled=True)
        result = await ax.OpenAIRunner(task.agent_id).run(agent, "Go.", run_config=run_config)
    await client.delete(session)
    return result, None


async def test_a_workspace_that_is_not_on_this_host_stops_the_run(
    task: ReplayableTask, tmp_path: Path
) -> None:
    instants = Instants(task, tmp_path / "copies", sandbox_folders.sandbox_home(), tmp_path / "snapshots")
    with instants.recording():
        await play(task, "run", tmp_path)
    opened = [n for n in range(len(instants)) if instants.has(n, "Coder#1/call_1", "outcome")]
    instants.restore(opened[0])
    for folder in left():
        shutil.rmtree(folder)
    with pytest.raises(ax.SandboxLostError, match=r"is not on host .*; retry the task where the sandbox is"):
        await play(task, "run", tmp_path)
    assert left() == []
    # The same for a snapshot: the run was about to continue from it.
    instants.restore(opened[-1])
    shutil.rmtree(tmp_path / "snapshots")
    with pytest.raises(ax.SandboxLostError, match="its snapshot is gone"):
        await play(task, "run", tmp_path)
    assert left() == []


async def test_a_workspace_at_a_place_of_the_users_own_resumes_unless_it_is_another_folder(
    task: ReplayableTask, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    manifest = Manifest(root=str(root), entries={"notes.txt": File(content=b"hello\n")})
    commands = ("echo changed > notes.txt", "cat notes.txt")
    breaking = Breaking(shell(*commands)[:1], ValueError("no luck"))
    run_config = config(tmp_path, snapshot=NoopSnapshotSpec(), manifest=manifest)
    with pytest.raises(ValueError, match="no luck"):
        await play_commands(task, tmp_path, breaking, run_config)
    root.rename(tmp_path / "kept")
    root.mkdir()
    with pytest.raises(ax.SandboxLostError, match="is another folder"):
        await play_commands(task, tmp_path, ScriptedModel(shell(*commands)[1:]), run_config)
    root.rmdir()
    (tmp_path / "kept").rename(root)
    result = await play_commands(task, tmp_path, ScriptedModel(shell(*commands)[1:]), run_config)
    assert outputs(result)[1].endswith("Output:\nchanged\n")
    assert (root / "notes.txt").read_text() == "changed\n", "the user's own folder is not removed"


class CloudState(UnixLocalSandboxSessionState):
    type: Literal["cloud"] = "cloud"  # ty: ignore[invalid-assignment]


class CloudClient(UnixLocalSandboxClient):
    """A client of a service that agentexec does not know."""

    backend_id = "cloud"

    async def create(self, **options: Any) -> Any:
        session = await super().create(**options)
        fields = {name: value for name, value in session.state if name != "type"}
        session.state = CloudState(**fields)
        return session


async def test_a_client_that_cannot_resume_stops_the_run_instead_of_giving_it_an_empty_sandbox(
    task: ReplayableTask, tmp_path: Path
) -> None:
    commands = ("echo one > out.txt", "cat out.txt")
    run_config = config(tmp_path, CloudClient(), snapshot=NoopSnapshotSpec())
    breaking = Breaking(shell(*commands)[:1], ValueError("no luck"))
    with pytest.raises(ValueError, match="no luck"):
        await play_commands(task, tmp_path, breaking, run_config)
    with pytest.raises(
        ax.SandboxLostError, match=r"cannot resume in its cloud sandbox.* only Unix-local and Docker"
    ):
        await play_commands(task, tmp_path, ScriptedModel(shell(*commands)[1:]), run_config)


async def test_a_worker_that_lost_its_task_leaves_the_sandbox_to_the_worker_that_has_it(
    task: ReplayableTask, tmp_path: Path
) -> None:
    """The task is taken over while the first worker is inside the second turn."""
    commands = ("echo one > out.txt", "cat out.txt")

    class Taking(Breaking):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                task.take_over()
            return await super().get_response(*args, **kwargs)

    with pytest.raises(ValueError, match="no luck"):
        await play_commands(task, tmp_path, Taking(shell(*commands)[:1], ValueError("no luck")))
    assert len(left()) == 1
    assert not (tmp_path / "snapshots").exists()
    result = await play_commands(task, tmp_path, ScriptedModel(shell(*commands)[1:]))
    assert outputs(result)[1].endswith("Output:\none\n")
    assert left() == []


async def test_a_canceled_task_leaves_no_sandbox(task: ReplayableTask, tmp_path: Path) -> None:
    class Canceled(Breaking):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                await RUNTIME.run_in_thread(set_status, task, ax.Status.CANCELED)
            return await super().get_response(*args, **kwargs)

    commands = ("echo one > out.txt", "cat out.txt")
    with pytest.raises(asyncio.CancelledError):
        await play_commands(task, tmp_path, Canceled(shell(*commands)[:1], asyncio.CancelledError()))
    assert left() == []


def set_status(task: ReplayableTask, status: ax.Status) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(status=status))


async def test_outside_a_task_the_sdk_makes_its_sandboxes_as_usual(tmp_path: Path) -> None:
    agent = coder("pwd")
    result = await ax.OpenAIRunner(UUID(int=1)).run(agent, "Go.", run_config=config(tmp_path))
    assert str(sandbox_folders.sandbox_home()) not in outputs(result)[0]


async def test_the_journal_holds_no_environment_of_a_sandbox(task: ReplayableTask, tmp_path: Path) -> None:
    manifest = Manifest(environment=Environment(value={"TOKEN": "sk-very-secret"}))
    result = await play_commands(
        task,
        tmp_path,
        ScriptedModel(shell("test $TOKEN = sk-very-secret && echo known")),
        default_manifest=manifest,
    )
    assert outputs(result)[0].endswith("Output:\nknown\n")
    with RUNTIME.engine.connect() as connection:
        values = connection.execute(select(JournalEntry.value)).scalars().all()
    assert any('"stage"' in value for value in values)
    assert not any("sk-very-secret" in value and '"stage"' in value for value in values)


class ContainerState(UnixLocalSandboxSessionState):
    type: Literal["docker"] = "docker"  # ty: ignore[invalid-assignment]
    container_id: str
    labels: dict[str, str] = Field(default_factory=dict)


class ContainerOptions(BaseModel):
    labels: dict[str, str] = {}


class ContainerClient(UnixLocalSandboxClient):
    """Stands for the SDK's Docker client, which needs a daemon: a container is a folder that outlives its processes.

    As in the SDK, `resume` makes an empty container in the place of one that is gone.
    """

    backend_id = "docker"
    containers: ClassVar[dict[str, dict[str, str]]] = {}

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def create(self, *, snapshot: Any = None, manifest: Any = None, options: Any = None) -> Any:
        session_id, manifest = uuid4(), manifest.model_copy(deep=True)
        state = ContainerState(
            session_id=session_id,
            manifest=manifest,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            container_id="",
            labels=options.labels,
        )
        return self._session(state, reused=False)

    def _session(self, state: ContainerState, *, reused: bool) -> Any:
        if not reused:
            state.container_id = uuid4().hex
            state.workspace_root_ready = False
            self.containers[state.container_id] = state.labels
        state.manifest.root = str(self._folder / state.container_id)
        inner = UnixLocalSandboxSession.from_state(state)
        inner._set_start_state_preserved(reused)
        return self._wrap_session(inner)

    async def resume(self, state: Any) -> Any:
        return self._session(state, reused=self.get_container(state.container_id) is not None)

    def get_container(self, container_id: str) -> Any:
        return self.containers.get(container_id)

    async def delete(self, session: Any) -> Any:
        del self.containers[session.state.container_id]
        shutil.rmtree(session.state.manifest.root)
        return session

    def deserialize_session_state(self, payload: Any) -> Any:
        return self._deserialize_session_state_payload(payload, ContainerState)


@pytest.mark.thorough
async def test_a_container_that_a_killed_worker_left_is_used_again_and_carries_the_tasks_id(
    task: ReplayableTask, tmp_path: Path
) -> None:
    folder = tmp_path / "containers"
    client = ContainerClient(folder)
    run_config = config(tmp_path, client, options=ContainerOptions(labels={"team": "a"}), manifest=MANIFEST)
    commands = ("echo one > out.txt; echo changed > notes.txt", "cat out.txt notes.txt")
    instants = Instants(task, tmp_path / "copies", folder)
    with instants.recording():
        await play_commands(task, tmp_path, ScriptedModel(shell(*commands)), run_config)
    assert client.containers == {}
    open_instants = [n for n in range(len(instants)) if instants.has(n, "Coder#1/call_1", "outcome")]
    state = instants.value(open_instants[0], "Coder#1/sandbox#1")["state"]
    assert state["labels"] == {"team": "a", "agentexec.task": str(task.agent_id)}
    assert (sandbox_folders.sandbox_home() / f"{task.agent_id}.docker").exists()
    shutil.rmtree(tmp_path / "snapshots")
    for instant in open_instants[:-1]:
        instants.restore(instant)
        client.containers[state["container_id"]] = state["labels"]
        given = instants.count(instant, "Coder#1", "model")
        result = await play_commands(task, tmp_path, ScriptedModel(shell(*commands)[given:]), run_config)
        assert outputs(result)[1].endswith("Output:\none\nchanged\n"), instant
        assert client.containers == {}, instant
        shutil.rmtree(tmp_path / "snapshots")
    instants.restore(open_instants[0])
    with pytest.raises(ax.SandboxLostError, match=r"docker sandbox.* its container is gone"):
        await play_commands(task, tmp_path, ScriptedModel(shell(*commands)[1:]), run_config)
    assert client.containers == {}


@pytest.mark.thorough
async def test_agents_of_one_run_each_find_their_own_sandbox_again(
    task: ReplayableTask, tmp_path: Path
) -> None:
    """An agent hands over to another, which asks a third one as a tool."""
    turns = {
        "First": [
            *shell("echo first > out.txt")[:1],
            [function_call("transfer_to_second", {}, call_id="call_to")],
        ],
        "Second": [
            [function_call("exec_command", {"cmd": "echo second > out.txt"}, call_id="call_s1")],
            [function_call("ask", {"input": "Well?"}, call_id="call_ask")],
            [function_call("exec_command", {"cmd": "cat out.txt"}, call_id="call_s2")],
            [assistant_message("Done.")],
        ],
        "Inner": shell("echo inner > out.txt", "cat out.txt"),
    }

    async def handler(given: dict[str, int]) -> Any:
        models = {name: ScriptedModel(script[given[name] :]) for name, script in turns.items()}
        agents = {name: SandboxAgent(name, model=models[name], capabilities=[Shell()]) for name in turns}
        agents["First"].handoffs = [agents["Second"]]
        agents["Second"].tools = [
            agents["Inner"].as_tool("ask", "Ask.", run_config=config(tmp_path), custom_output_extractor=told)
        ]
        runner = ax.OpenAIRunner(task.agent_id, tool_policy="idempotent")
        return await runner.run(agents["First"], "Go.", run_config=config(tmp_path))

    async def told(result: Any) -> str:
        return outputs(result)[-1]

    instants = Instants(task, tmp_path / "copies", sandbox_folders.sandbox_home(), tmp_path / "snapshots")
    with instants.recording():
        await task.attempt(lambda: handler(dict.fromkeys(turns, 0)))
    for instant in range(2, len(instants), 3):
        instants.restore(instant)
        outer = instants.count(instant, "First#1", "model")
        inner = instants.count(instant, "First#1/call_ask/Inner#1", "model")
        given = {"First": min(outer, 2), "Second": max(0, outer - 2), "Inner": inner}
        result = await task.attempt(lambda given=given: handler(given))
        found = [text.rpartition("Output:\n")[2] for text in outputs(result)]
        assert found[-2:] == ["inner\n", "second\n"], instant
        # A sandbox whose creation was not recorded is found by its name when the task has ended.
        set_status(task, ax.Status.COMPLETE)
        SandboxSweep(RUNTIME.engine).run()
        assert left() == [], instant

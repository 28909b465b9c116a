"""Background responses: asked for once, whatever happens to the worker that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from uuid import UUID

import pytest
from agents import Agent, Model, ModelSettings, OpenAIResponsesModel, function_tool
from agents.exceptions import ModelBehaviorError
from agents.testing import ScriptedModel, assistant_message
from openai import AsyncOpenAI, AuthenticationError, DefaultAsyncHttpxClient
from sqlalchemy import update

import agentexec as ax
from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.models import Activity
from agentexec.arguments.budgets import TaskBudget, parse_limit
from agentexec.journal.cuts import cut_at
from agentexec.journal.forks import copy_cut, truncate
from agentexec.journal.scopes import SCOPE
from agentexec.policy import CrashCounts
from agentexec.runners.openai import background_waits
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from agentexec.worker.attempt import execute_attempt
from agentexec.worker.slots import Slots
from tests.attempts import ReplayableTask
from tests.responses_server import Behavior, ResponsesServer, message, tool_call
from tests.waiting import wait_until_async

Mode = Literal["run", "run_streamed"]

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])

TURNS = [[tool_call("look_up", "call_1", topic="tides")], [message("High at noon.")]]
NEVER = 600.0
"""Seconds of a response that ends only when the test says so."""

PATHS = ["Agent#1/background_1", "Agent#1/background_2"]


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def task(database: None) -> ReplayableTask:
    return ReplayableTask()


@pytest.fixture(scope="module")
def running_server() -> Iterator[ResponsesServer]:
    with ResponsesServer(Behavior()) as server:
        yield server


@pytest.fixture
def server(running_server: ResponsesServer, monkeypatch: pytest.MonkeyPatch) -> ResponsesServer:
    running_server.behavior = Behavior({"gpt": TURNS})
    running_server.ledger.clear()
    monkeypatch.setattr(background_waits, "SHORTEST_PAUSE", 0.01)
    return running_server


class Case:
    """An agent whose model is the server, and what a handler does with it."""

    def __init__(self, server: ResponsesServer, mode: Mode) -> None:
        self.server = server
        self.mode = mode
        self.events: list[Any] = []
        self.looked_up: list[str] = []

    def agent(self, settings: ModelSettings | None = None) -> Agent[Any]:
        @ax.tool_policy("idempotent")
        @function_tool
        async def look_up(topic: str) -> str:
            """Look a topic up."""
            self.looked_up.append(topic)
            return f"{topic}: 42"

        # Reading the certificates of the system would take longer than the rest of a test.
        http = DefaultAsyncHttpxClient(verify=False)
        client = AsyncOpenAI(base_url=self.server.url, api_key="k", http_client=http)
        model = OpenAIResponsesModel("gpt", client)
        return Agent("Agent", model=model, tools=[look_up], model_settings=settings or ModelSettings())

    async def handle(self, task: ReplayableTask, settings: ModelSettings | None = None) -> Any:
        runner = ax.OpenAIRunner(task.agent_id, background=settings is None)
        if self.mode == "run":
            return await runner.run(self.agent(settings), "Go.")
        result = await runner.run_streamed(self.agent(settings), "Go.")
        self.events = [
            event.data async for event in result.stream_events() if event.type == "raw_response_event"
        ]
        return result

    async def attempt(self, task: ReplayableTask, settings: ModelSettings | None = None) -> Any:
        return await task.attempt(lambda: self.handle(task, settings))

    async def die_waiting(self, task: ReplayableTask, responses: int = 1) -> None:
        """Run an attempt that ends, as a kill ends it, while it waits for a response, the first one or a later one.

        The response comes when the worker is gone.
        """
        self.server.behavior.seconds = NEVER
        attempt = asyncio.ensure_future(self.attempt(task))
        for number in range(1, responses + 1):
            await wait_until_async(lambda number=number: recorded_ids(task) == number)
            if number < responses:
                self.server.finish()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        self.server.behavior.seconds = 0
        self.server.finish()


def recorded_ids(task: ReplayableTask) -> int:
    return sum(kind == "background" for _, _, kind in task.journal())


@pytest.fixture(params=["run", "run_streamed"])
def case(server: ResponsesServer, request: pytest.FixtureRequest) -> Case:
    return Case(server, request.param)


def set_status(task: ReplayableTask, status: ax.Status) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(status=status))


async def test_the_id_of_each_response_is_recorded_before_its_answer(
    case: Case, task: ReplayableTask
) -> None:
    result = await case.attempt(task)
    assert result.final_output == "High at noon."
    kinds = [(path, kind) for path, _, kind in task.journal() if path == "Agent#1" or "background" in path]
    assert kinds == [
        ("Agent#1", "run"),
        (PATHS[0], "background"),
        ("Agent#1", "model"),
        (PATHS[1], "background"),
        ("Agent#1", "model"),
    ]
    assert all(line["key"].startswith("agentexec-") for line in case.server.lines("create"))
    assert result.context_wrapper.usage.total_tokens == 220


@pytest.mark.parametrize("responses", [1, 2])
async def test_another_worker_fetches_what_was_asked_for(
    case: Case, task: ReplayableTask, responses: int
) -> None:
    await case.die_waiting(task, responses)
    result = await case.attempt(task)
    assert result.final_output == "High at noon."
    assert case.server.count("create") == 2
    assert case.looked_up == ["tides"]
    assert result.context_wrapper.usage.total_tokens == 220
    assert case.server.count("cancel") == 0


async def test_an_agent_may_ask_for_it_by_its_own_settings(case: Case, task: ReplayableTask) -> None:
    await case.attempt(task, ModelSettings(extra_args={"background": True}))
    assert recorded_ids(task) == 2


async def test_an_agent_may_decline(server: ResponsesServer, task: ReplayableTask) -> None:
    case = Case(server, "run")
    agent = case.agent(ModelSettings(extra_args={"background": False}))
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id, background=True).run(agent, "Go."))
    assert recorded_ids(task) == 0
    assert server.count("create") == 2


async def test_a_server_that_answers_at_once_needs_no_id(
    server: ResponsesServer, task: ReplayableTask
) -> None:
    server.behavior.knows_background = False
    result = await Case(server, "run").attempt(task)
    assert result.final_output == "High at noon."
    assert recorded_ids(task) == 0


async def test_a_model_that_is_not_stored_cannot(case: Case, task: ReplayableTask) -> None:
    with pytest.raises(ax.UsageError, match="store=False"):
        await case.attempt(task, ModelSettings(store=False, extra_args={"background": True}))
    assert case.server.count("create") == 0


@pytest.mark.parametrize("knows_keys", [False, True])
async def test_only_a_kill_between_the_request_and_its_record_costs_a_call(
    case: Case, task: ReplayableTask, knows_keys: bool
) -> None:
    """The window that is left: the provider has begun, and the worker dies before the id is recorded."""
    case.server.behavior.knows_keys = knows_keys
    await case.attempt(task)
    # As if the worker had been killed in the window of the second call: neither its id nor its answer is recorded.
    task.delete_entries([(PATHS[1], 0), ("Agent#1", 2)])
    assert (await case.attempt(task)).final_output == "High at noon."
    keys = [line["key"] for line in case.server.lines("create")]
    assert len(keys) == (2 if knows_keys else 3)
    assert len(set(keys)) == 2, "a server that knows keys can tell that it has been asked before"


async def test_a_worker_that_stops_takes_the_id_along(case: Case, task: ReplayableTask) -> None:
    """Stopped while the request is under way: the answer to it is awaited, for seconds at most."""
    case.server.behavior.seconds, case.server.behavior.begins_after = NEVER, 0.5
    pool = ax.Pool()

    @pool.task("research")
    async def research(agent_id: UUID, context: dict[str, Any]) -> None:
        await case.handle(task)

    task.take_over()
    admitted = Admitted(Lease(task.agent_id, task.epoch), "research", "{}", 1, CrashCounts())
    with ThreadPoolExecutor(1) as threads:
        executing = execute_attempt(pool.registry, admitted, threads, is_stopping=lambda: True)
        attempt = asyncio.ensure_future(executing)
        await wait_until_async(lambda: case.server.count("create") == 1)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert recorded_ids(task) == 1
    case.server.behavior.seconds, case.server.behavior.begins_after = 0, 0
    case.server.finish()
    await case.attempt(task)
    assert case.server.count("create") == 2
    assert case.server.count("cancel") == 0


async def test_a_canceled_task_cancels_its_response(case: Case, task: ReplayableTask) -> None:
    case.server.behavior.seconds = NEVER
    attempt = asyncio.ensure_future(case.attempt(task))
    await wait_until_async(lambda: recorded_ids(task) == 1)
    set_status(task, ax.Status.CANCELED)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await wait_until_async(lambda: case.server.count("cancel") == 1)
    # Retried, it asks again.
    case.server.behavior.seconds = 0
    assert (await case.attempt(task)).final_output == "High at noon."
    assert case.server.count("create") == 3


async def test_a_worker_that_has_lost_its_task_cancels_what_it_began(
    case: Case, task: ReplayableTask
) -> None:
    case.server.behavior.seconds = NEVER
    create = ResponsesServer.note

    def steal(server: ResponsesServer, what: str, **facts: Any) -> None:
        create(server, what, **facts)
        if what == "create":
            task.epoch += 1
            with RUNTIME.engine.begin() as connection:
                connection.execute(update(Activity).values(epoch=task.epoch))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResponsesServer, "note", steal)
        with pytest.raises(ax.LeaseLostError):
            await case.attempt(task)
    assert case.server.count("cancel") == 1


@pytest.mark.parametrize("end", ["failed", "cancelled", "gone"])
async def test_a_response_without_an_answer_is_asked_for_once_more(
    case: Case, task: ReplayableTask, end: str
) -> None:
    case.server.behavior.ends = [end]
    assert (await case.attempt(task)).final_output == "High at noon."
    assert case.server.count("create") == 3
    assert recorded_ids(task) == 4, "two begins and an end, and the begin of the second call"
    assert len({line["key"] for line in case.server.lines("create")}) == 3


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("failed", ModelBehaviorError),
        ("cancelled", ax.BackgroundResponseError),
        ("gone", ax.BackgroundResponseError),
    ],
)
async def test_twice_without_an_answer_is_an_error(
    case: Case, task: ReplayableTask, end: str, error: type[Exception]
) -> None:
    case.server.behavior.ends = [end, end]
    with pytest.raises(error):
        await case.attempt(task)
    assert case.server.count("create") == 2
    # The next attempt starts with a new request.
    assert (await case.attempt(task)).final_output == "High at noon."
    assert case.server.count("create") == 4


async def test_an_incomplete_response_is_an_error_at_once(case: Case, task: ReplayableTask) -> None:
    """As in the foreground: the same request would most likely end in the same way."""
    case.server.behavior.ends = ["incomplete"]
    with pytest.raises(ModelBehaviorError):
        await case.attempt(task)
    assert case.server.count("create") == 1
    assert (await case.attempt(task)).final_output == "High at noon."


async def test_a_response_that_is_gone_when_the_task_resumes_is_asked_for_again(
    case: Case, task: ReplayableTask
) -> None:
    await case.die_waiting(task)
    case.server.answers.clear()
    assert (await case.attempt(task)).final_output == "High at noon."
    assert case.server.count("create") == 3


async def test_a_provider_that_is_away_for_a_while_is_waited_for(case: Case, task: ReplayableTask) -> None:
    await case.die_waiting(task)
    case.server.behavior.errors = [500, 429, 503]
    assert (await case.attempt(task)).final_output == "High at noon."
    assert case.server.count("create") == 2


async def test_a_provider_that_refuses_is_an_error_and_nothing_is_lost(
    case: Case, task: ReplayableTask
) -> None:
    await case.die_waiting(task)
    case.server.behavior.errors = [401] * 2
    with pytest.raises(AuthenticationError):
        await case.attempt(task)
    case.server.behavior.errors.clear()
    assert (await case.attempt(task)).final_output == "High at noon."
    assert case.server.count("create") == 2


async def test_a_provider_that_stays_away_is_an_error_in_the_end(
    case: Case, task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    await case.die_waiting(task)
    monkeypatch.setattr(background_waits, "PATIENCE", 0.05)
    monkeypatch.setattr(background_waits, "backoff", lambda _: 0)
    case.server.behavior.errors = [403] if case.mode == "run" else [403, 403]
    with pytest.raises(Exception, match="403"):
        await case.attempt(task)
    assert case.server.count("create") == 1


async def test_a_stream_that_breaks_goes_on_after_its_last_event(
    server: ResponsesServer, task: ReplayableTask
) -> None:
    case = Case(server, "run_streamed")
    await case.attempt(ReplayableTask())
    whole = [(event.type, event.sequence_number) for event in case.events]
    server.ledger.clear()
    server.behavior.breaks = [1, 2, 3]
    assert (await case.attempt(task)).final_output == "High at noon."
    assert [(event.type, event.sequence_number) for event in case.events] == whole
    assert [line["after"] for line in server.lines("stream")] == ["0", "2", "5"]
    assert server.count("create") == 2


async def test_a_stream_that_cannot_be_taken_up_ends_with_the_whole_answer(
    server: ResponsesServer, task: ReplayableTask
) -> None:
    case = Case(server, "run_streamed")
    server.behavior.breaks = [2, 2]
    server.behavior.streams_again = False
    assert (await case.attempt(task)).final_output == "High at noon."
    assert server.count("create") == 2


async def test_a_resumed_stream_gives_all_events(server: ResponsesServer, task: ReplayableTask) -> None:
    case = Case(server, "run_streamed")
    await case.attempt(ReplayableTask())
    whole = [event.type for event in case.events]
    server.ledger.clear()
    await case.die_waiting(task, 2)
    await case.attempt(task)
    assert [event.type for event in case.events] == whole
    assert server.count("create") == 2


@pytest.mark.parametrize("modes", [("run", "run_streamed"), ("run_streamed", "run")])
async def test_a_task_may_come_back_with_or_without_a_stream(
    server: ResponsesServer, task: ReplayableTask, modes: tuple[Mode, Mode]
) -> None:
    await Case(server, modes[0]).die_waiting(task)
    assert (await Case(server, modes[1]).attempt(task)).final_output == "High at noon."
    assert server.count("create") == 2


async def test_a_long_wait_takes_no_slot_and_names_the_response(
    case: Case, task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Any] = []
    slots = Slots(1, on_release=released.append)
    slots.acquire(1)
    monkeypatch.setattr(RUNTIME, "slots", slots)
    monkeypatch.setattr(background_waits, "INLINE_SECONDS", 0.02)
    case.server.behavior.seconds = NEVER
    attempt = asyncio.ensure_future(case.attempt(task))
    for number in (1, 2):
        await wait_until_async(lambda number=number: len(released) >= number)
        case.server.finish()
    await attempt
    assert slots.free == 0, "the task has its slot again"
    ids = [line["id"] for line in case.server.lines("create")]
    assert [line for line in task.messages() if "background" in line] == [
        f"Waiting for background response {id}." for id in ids
    ]


@pytest.mark.parametrize("responses", [1, 2])
async def test_a_branch_of_new_code_is_not_taken_before_a_response_that_was_asked_for(
    server: ResponsesServer, task: ReplayableTask, responses: int
) -> None:
    """`ax.changed` before the run: the earlier attempt went further. After the run, this attempt gets there first."""
    case = Case(server, "run")
    await case.die_waiting(task, responses)

    async def handle() -> list[bool]:
        before = await ax.changed("before")
        await case.handle(task)
        return [before, await ax.changed("after")]

    assert await task.attempt(handle) == [False, True]
    assert server.count("create") == 2


async def test_a_fork_asks_for_its_own_response(case: Case, task: ReplayableTask) -> None:
    await case.attempt(task)
    fork = ReplayableTask()
    fork.epoch = 1
    with RUNTIME.engine.begin() as connection:
        copy_cut(connection, task.agent_id, fork.agent_id, cut_at(connection, task.agent_id, None, 2))
    assert recorded_ids(fork) == 0
    assert (await case.attempt(fork)).final_output == "High at noon."
    assert case.server.count("create") == 3


async def test_a_retry_from_a_turn_asks_again(case: Case, task: ReplayableTask) -> None:
    await case.attempt(task)
    with RUNTIME.engine.begin() as connection:
        truncate(connection, task.agent_id, cut_at(connection, task.agent_id, None, 2), 1)
    assert (await case.attempt(task)).final_output == "High at noon."
    assert case.server.count("create") == 3


async def test_a_response_that_is_paid_for_is_fetched_at_the_limit_of_a_budget(
    case: Case, task: ReplayableTask
) -> None:
    """Another worker fetches it although nothing is left; the next call is refused as ever."""
    await case.die_waiting(task)

    async def handle() -> Any:
        scope = SCOPE.get()
        assert scope is not None
        scope.recorder.budget.task = TaskBudget(parse_limit("1 token"), "fail")
        return await case.handle(task)

    with pytest.raises(ax.BudgetExceededError, match="110 tokens spent"):
        await task.attempt(handle)
    assert case.server.count("create") == 1
    assert [kind for path, _, kind in task.journal() if path == "Agent#1"] == ["run", "model"]


class OtherModel(Model):
    """Model of another provider."""

    def __init__(self, script: ScriptedModel) -> None:
        self._script = script

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        return await self._script.get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        return self._script.stream_response(*args, **kwargs)


@pytest.mark.parametrize("is_scripted", [True, False])
async def test_other_models_answer_in_the_foreground(
    is_scripted: bool, task: ReplayableTask, caplog: pytest.LogCaptureFixture
) -> None:
    script = ScriptedModel([[assistant_message("Done")]])
    agent = Agent("Agent", model=script if is_scripted else OtherModel(script))
    runner = ax.OpenAIRunner(task.agent_id, background=True)
    assert (await task.attempt(lambda: runner.run(agent, "Go."))).final_output == "Done"
    said = [record.getMessage() for record in caplog.records if record.name == "agentexec.background"]
    assert len(said) == (0 if is_scripted else 1)

"""Calls that wait for a person: the task leaves its worker, and resumes with the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import pytest
from agents import Agent, SQLiteSession, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.db.clock import utc_now
from agentexec.errors import Postponed, WaitingForApproval
from agentexec.journal.models import Approval
from agentexec.journal.waiting import FAR_FUTURE_SECONDS
from agentexec.journal.wake_ups import tasks_to_wake
from agentexec.runners.openai.approvals import APPROVAL_EXPIRED_MESSAGE
from agentexec.runners.openai.tools import REJECTED_MESSAGE
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

Mode = Literal["run", "run_streamed"]

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def task(database: None) -> ReplayableTask:
    return ReplayableTask()


class Mail:
    """Emails that were really sent, and topics that were looked up."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.done: list[str] = []

    @property
    def tools(self) -> list[Any]:
        @function_tool(needs_approval=True)
        async def send_email(to: str) -> str:
            """Send an email."""
            self.sent.append(to)
            return f"sent to {to}"

        @function_tool
        async def look_up(topic: str) -> str:
            """Look a topic up."""
            self.done.append(topic)
            return f"{topic}: 42"

        return [send_email, look_up]


@pytest.fixture
def mail() -> Mail:
    return Mail()


def send(to: str, call_id: str = "call_1") -> Any:
    return function_call("send_email", {"to": to}, call_id=call_id)


def look(topic: str) -> Any:
    return function_call("look_up", {"topic": topic}, call_id=f"look_{topic}")


DONE = [assistant_message("Done.")]


class Office:
    """A handler whose model counts the calls of all attempts."""

    def __init__(
        self, task: ReplayableTask, mail: Mail, turns: list[list[Any]], mode: Mode = "run", **options: Any
    ) -> None:
        self.task = task
        self.mode = mode
        self.options = options
        self.session: SQLiteSession | None = None
        # A recorded response is not asked for again, so one script serves all attempts.
        self.model = ScriptedModel(turns)
        self.agent = Agent("Clerk", model=self.model, tools=mail.tools)
        self.events: list[str] = []

    async def handler(self) -> Any:
        runner = ax.OpenAIRunner(self.task.agent_id, **self.options)
        if self.mode == "run":
            return await runner.run(self.agent, "Go.", session=self.session)
        result = await runner.run_streamed(self.agent, "Go.", session=self.session)
        async for event in result.stream_events():
            self.events.append(getattr(event, "name", event.type))
        return result

    async def attempt(self) -> Any:
        return await self.task.attempt(self.handler)

    async def leaves_to_wait(self) -> WaitingForApproval:
        with pytest.raises(WaitingForApproval) as raised:
            await self.attempt()
        return raised.value


def pending(task: ReplayableTask | None = None) -> list[Any]:
    with Session(RUNTIME.engine) as db:
        return ax.approvals.list(db, task and task.agent_id)


def outputs(result: Any) -> dict[str, str]:
    return {
        item["call_id"]: item["output"]
        for item in result.to_input_list()
        if item.get("type") == "function_call_output"
    }


@both_modes
async def test_an_approved_call_is_made_and_the_run_resumes(
    task: ReplayableTask, mail: Mail, mode: Mode
) -> None:
    office = Office(task, mail, [[look("a")], [send("Ann"), look("b")], DONE], mode)
    left = await office.leaves_to_wait()
    assert str(left) == 'Waiting for approval: send_email({"to":"Ann"})'
    assert left.seconds == FAR_FUTURE_SECONDS
    assert (mail.sent, mail.done) == ([], ["a", "b"])
    [question] = pending(task)
    assert (question.call_id, question.kind, question.tool) == ("call_1", "approval", "send_email")
    assert (question.arguments, question.agent_type) == ('{"to":"Ann"}', "research")

    assert str(await office.leaves_to_wait()) == str(left), "it waits through any number of restarts"
    assert await ax.approve(task.agent_id, "call_1")
    assert pending(task) == []
    result = await office.attempt()
    assert result.final_output == "Done."
    assert result.last_agent is office.agent
    assert (mail.sent, mail.done) == (["Ann"], ["a", "b"])
    assert outputs(result) == {"look_a": "a: 42", "look_b": "b: 42", "call_1": "sent to Ann"}
    assert len(office.model.calls) == 3

    again = await office.attempt()
    assert again.to_input_list() == result.to_input_list()
    assert mail.sent == ["Ann"]
    assert len(office.model.calls) == 3


@both_modes
async def test_a_rejected_call_is_not_made_and_the_model_is_told(
    task: ReplayableTask, mail: Mail, mode: Mode
) -> None:
    office = Office(task, mail, [[send("Ann")], DONE], mode)
    await office.leaves_to_wait()
    assert await ax.reject(task.agent_id, "call_1", message="Ann has left.")
    result = await office.attempt()
    assert outputs(result) == {"call_1": "Ann has left."}
    assert mail.sent == []


@both_modes
async def test_a_run_waits_for_all_answers(task: ReplayableTask, mail: Mail, mode: Mode) -> None:
    office = Office(
        task, mail, [[send("Ann", "call_1"), send("Bob", "call_2")], [send("Cid", "call_3")], DONE], mode
    )
    await office.leaves_to_wait()
    assert await ax.approve(task.agent_id, "call_2")
    assert "Ann" in str(await office.leaves_to_wait())
    assert mail.sent == []
    assert await ax.reject(task.agent_id, "call_1")
    assert "Cid" in str(await office.leaves_to_wait())
    assert mail.sent == ["Bob"]
    assert await ax.approve(task.agent_id, "call_3")
    assert (await office.attempt()).final_output == "Done."
    assert mail.sent == ["Bob", "Cid"]


@both_modes
async def test_a_session_holds_the_whole_run_once(
    task: ReplayableTask, mail: Mail, mode: Mode, tmp_path: Any
) -> None:
    office = Office(task, mail, [[send("Ann")], DONE], mode)
    office.session = SQLiteSession("s", tmp_path / "session.db")
    await office.leaves_to_wait()
    await office.leaves_to_wait()
    await ax.approve(task.agent_id, "call_1")
    await office.attempt()
    first = await office.session.get_items()
    assert [item.get("type", item.get("role")) for item in first] == [
        "user",
        "function_call",
        "function_call_output",
        "message",
    ]
    await office.attempt()
    assert await office.session.get_items() == first


@both_modes
async def test_an_agent_used_as_a_tool_may_need_approval(
    task: ReplayableTask, mail: Mail, mode: Mode
) -> None:
    inner = Agent(
        "Inner",
        model=ScriptedModel([[send("Ann", "inner_1")], [assistant_message("Inside.")]]),
        tools=mail.tools,
    )
    office = Office(task, mail, [[function_call("delegate", {"input": "?"}, call_id="outer_1")], DONE], mode)
    office.agent.tools = [inner.as_tool("delegate", "Delegate.")]
    await office.leaves_to_wait()
    [question] = pending(task)
    assert (question.call_id, question.tool) == ("inner_1", "send_email")
    await ax.approve(task.agent_id, "inner_1")
    for _ in range(2):
        result = await office.attempt()
        assert outputs(result) == {"outer_1": "Inside."}
        assert mail.sent == ["Ann"]


@both_modes
async def test_an_approval_expires(task: ReplayableTask, mail: Mail, mode: Mode) -> None:
    office = Office(task, mail, [[send("Ann")], DONE], mode, approval_timeout=timedelta(hours=1))
    assert 3590 < (await office.leaves_to_wait()).seconds <= 3600
    with Session(RUNTIME.engine) as db:
        db.execute(update(Approval).values(expires_at=utc_now() - timedelta(seconds=1)))
        db.commit()
    assert pending(task) == []
    assert not await ax.approve(task.agent_id, "call_1")
    assert outputs(await office.attempt()) == {"call_1": APPROVAL_EXPIRED_MESSAGE}
    assert mail.sent == []


async def test_a_run_in_parallel_with_a_waiting_one_is_not_cut_off(task: ReplayableTask, mail: Mail) -> None:
    waits = Agent("Clerk", model=ScriptedModel([[send("Ann")], DONE]), tools=mail.tools)
    ended: list[str] = []

    @function_tool
    async def slowly() -> str:
        await asyncio.sleep(0.5)
        ended.append("slow")
        return "slow"

    calls = [function_call("slowly", {}, call_id=f"slow_{number}") for number in range(3)]
    works = Agent("Worker", model=ScriptedModel([*([call] for call in calls), DONE]), tools=[slowly])

    async def handler() -> Any:
        runner = ax.OpenAIRunner(task.agent_id)
        return await asyncio.gather(runner.run(waits, "One."), runner.run(works, "Two."))

    with pytest.raises(WaitingForApproval):
        await task.attempt(handler)
    assert ended == ["slow"] * 3
    await ax.approve(task.agent_id, "call_1")
    first, second = await task.attempt(handler)
    assert (first.final_output, second.final_output) == ("Done.", "Done.")
    assert ended == ["slow"] * 3
    assert mail.sent == ["Ann"]


async def test_a_wait_for_approval_ends_with_the_first_wait_in_parallel_with_it(
    task: ReplayableTask, mail: Mail
) -> None:
    waits = Agent("Clerk", model=ScriptedModel([[send("Ann")], DONE]), tools=mail.tools)

    async def handler() -> Any:
        runner = ax.OpenAIRunner(task.agent_id)
        return await asyncio.gather(runner.run(waits, "One."), ax.wait_for_event("paid", timeout=60))

    with pytest.raises(Postponed) as raised:
        await task.attempt(handler)
    assert raised.value.seconds <= 60
    assert raised.value.waiting_for == {"approval", "event"}


async def test_an_answer_that_comes_while_the_task_still_works_takes_effect_at_once(
    task: ReplayableTask, mail: Mail
) -> None:
    waits = Agent("Clerk", model=ScriptedModel([[send("Ann")], DONE]), tools=mail.tools)

    async def handler() -> Any:
        runner = ax.OpenAIRunner(task.agent_id)
        run = asyncio.ensure_future(runner.run(waits, "One."))
        await runner.step("boss", boss)
        return await run

    async def boss() -> None:
        while not await RUNTIME.run_in_thread(pending, task):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await ax.approve(task.agent_id, "call_1")
        while not mail.sent:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert (await task.attempt(handler)).final_output == "Done."


@pytest.mark.parametrize("answer", ["approve", "reject", "reject with a message"])
async def test_a_person_decides_about_a_call_that_was_cut_off(task: ReplayableTask, answer: str) -> None:
    made: list[str] = []

    class Killed(BaseException):
        """Death of the process: what is recorded of it is deleted."""

    async def killed_at(seq: int) -> None:
        with pytest.raises(Killed):
            await task.attempt(handler)
        task.delete_entries([("Till#1/call_1", seq)])

    @ax.tool_policy("ask")
    @function_tool
    async def charge(cents: int) -> str:
        made.append(ax.idempotency_key())
        if len(made) <= 2:
            raise Killed
        return "charged"

    turns = [[function_call("charge", {"cents": 5}, call_id="call_1")], DONE]
    model = ScriptedModel(turns)
    agent = Agent("Till", model=model, tools=[charge])

    async def handler() -> Any:
        return await ax.OpenAIRunner(task.agent_id).run(agent, "Go.")

    await killed_at(1)
    with pytest.raises(
        WaitingForApproval, match=r'charge\(\{"cents":5\}\), which was cut off, to be made again'
    ):
        await task.attempt(handler)
    [question] = pending(task)
    assert (question.kind, question.call_id, question.tool) == ("repeat", "call_1", "charge")
    if answer == "approve":
        await ax.approve(task.agent_id, "call_1")
        await killed_at(2)
        # Approval of one repetition does not cover the next.
        with pytest.raises(WaitingForApproval):
            await task.attempt(handler)
        await ax.approve(task.agent_id, "call_1")
        assert outputs(await task.attempt(handler)) == {"call_1": "charged"}
        assert len(made) == 3
        assert len(set(made)) == 1
    else:
        message = "Ask the bank." if "message" in answer else None
        await ax.reject(task.agent_id, "call_1", message=message)
        assert outputs(await task.attempt(handler)) == {"call_1": message or REJECTED_MESSAGE}
        assert len(made) == 1


async def test_only_an_open_question_of_an_existing_task_can_be_answered(
    task: ReplayableTask, mail: Mail
) -> None:
    with pytest.raises(ax.ActivityNotFoundError):
        await ax.approve(uuid4(), "call_1")
    with pytest.raises(ax.ApprovalNotFoundError, match="call_1"):
        await ax.approve(task.agent_id, "call_1")
    with pytest.raises(ax.UsageError, match="not an agent_id"):
        await ax.approve("seven", "call_1")
    office = Office(task, mail, [[send("Ann")], DONE])
    await office.leaves_to_wait()
    with pytest.raises(ax.ActivityNotFoundError):
        await ax.approve(task.agent_id, "call_1", metadata_filter={"organization_id": "other"})
    assert await ax.approve(task.agent_id, "call_1")
    assert not await ax.approve(task.agent_id, "call_1")
    assert not await ax.reject(task.agent_id, "call_1")


async def test_a_task_that_has_ended_has_no_open_questions(task: ReplayableTask, mail: Mail) -> None:
    office = Office(task, mail, [[send("Ann")], DONE])
    await office.leaves_to_wait()
    await ax.cancel(task.agent_id)
    assert pending() == []
    assert not await ax.approve(task.agent_id, "call_1")


async def test_a_worker_that_lost_its_task_asks_no_question(task: ReplayableTask, mail: Mail) -> None:
    office = Office(task, mail, [[send("Ann")], DONE])

    async def handler() -> Any:
        task.take_over()
        return await office.handler()

    with pytest.raises(ax.LeaseLostError):
        await task.attempt(handler)
    assert pending() == []


async def test_an_answer_is_logged_even_if_the_queue_is_unavailable(
    task: ReplayableTask, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(queue: str, agent_ids: Any) -> None:
        raise ax.UnavailableError("Redis is unavailable.")

    office = Office(task, mail, [[send("Ann")], DONE])
    await office.leaves_to_wait()
    with monkeypatch.context() as patch:
        patch.setattr(RUNTIME.backend, "make_ready", unavailable)
        assert await ax.approve(task.agent_id, "call_1")
    assert task.messages()[-1] == 'Approved: send_email({"to":"Ann"})'
    # The test's activity has no queue; the reconciler asks only for tasks of its own queue.
    assert tasks_to_wake(RUNTIME.engine, "approval", "default", utc_now() + timedelta(seconds=1), 10) == []
    with Session(RUNTIME.engine) as db:
        assert db.query(Approval).one().wake_at is not None

"""Hooks, webhooks, reminders and default answers of questions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.db.clock import utc_now
from agentexec.errors import WaitingForApproval
from agentexec.journal.attempt_approvals import AttemptApprovals
from agentexec.journal.models import Approval
from agentexec.journal.scopes import SCOPE
from agentexec.registry import Registry
from agentexec.runners.openai.approvals import APPROVAL_EXPIRED_MESSAGE
from agentexec.runtime import RUNTIME
from agentexec.webhooks.record import MESSAGE
from agentexec.worker.approval_notices import MAX_NOTICES, ApprovalNotices
from tests.attempts import ReplayableTask

DONE = [assistant_message("Done.")]
URL = "https://example.com/hooks/approvals?token=secret"


async def tell(agent_id: Any, context: ax.ApprovalRequest) -> None:
    """Handler of questions."""


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add_approval_handler(tell)
    return registry


class Asking:
    """A task whose agent asks for approval under a policy."""

    def __init__(self, policy: ax.ApprovalPolicy, *, has_hooks: bool = True, **options: Any) -> None:
        self.task = ReplayableTask()
        with RUNTIME.engine.begin() as connection:
            connection.execute(update(Activity).values(queue="q", metadata_={"tenant": "acme"}))
        self.policy, self.has_hooks, self.options = policy, has_hooks, options
        self.done: list[str] = []

        @function_tool(needs_approval=True)
        async def send(to: str) -> str:
            """Send something."""
            self.done.append(to)
            return "sent"

        call = function_call("send", {"to": "Ann"}, call_id="call_1")
        self.agent = Agent("Clerk", model=ScriptedModel([[call], DONE]), tools=[send])

    async def attempt(self) -> Any:
        async def handler() -> Any:
            scope = SCOPE.get()
            assert scope is not None
            scope.recorder.approvals = AttemptApprovals(self.policy, has_hooks=self.has_hooks)
            return await ax.OpenAIRunner(self.task.agent_id, **self.options).run(self.agent, "Go.")

        return await self.task.attempt(handler)

    async def waits(self) -> None:
        with pytest.raises(WaitingForApproval):
            await self.attempt()


def requests() -> list[Any]:
    """Return the contexts of the calls of the handler."""
    with RUNTIME.engine.connect() as connection:
        query = select(Activity.context).where(Activity.agent_type == "on_approval.tell")
        return [json.loads(text) for text in connection.execute(query.order_by(Activity.agent_id)).scalars()]


def messages() -> list[Any]:
    with RUNTIME.engine.connect() as connection:
        return list(connection.execute(select(MESSAGE).order_by(MESSAGE.c.message_id)))


def notices(registry: Registry) -> ApprovalNotices:
    return ApprovalNotices(RUNTIME.engine, registry, "q")


async def test_hooks_and_webhooks_are_told_once_and_reminded(registry: Registry) -> None:
    registry.add("research", tell)
    asking = Asking(ax.ApprovalPolicy(webhook=URL, reminder=timedelta(hours=1)))
    await asking.waits()
    sweep, now = notices(registry), utc_now()
    assert [sweep.run_once(now), sweep.run_once(now), sweep.run_once(now + timedelta(minutes=59))] == [
        1,
        0,
        0,
    ]
    [request] = requests()
    assert (request["tool"], request["arguments"], request["call_id"]) == ("send", '{"to":"Ann"}', "call_1")
    assert (request["agent_id"], request["metadata"]) == (str(asking.task.agent_id), {"tenant": "acme"})
    [message] = messages()
    assert (message.event, message.url) == ("approval.requested", URL)
    assert json.loads(message.body)["data"]["default"] == "reject"

    await asking.waits()  # a restart asks no new question
    late = now + timedelta(hours=3)
    assert [sweep.run_once(late), sweep.run_once(late)] == [1, 0], "missed reminders are not made up for"
    assert [message.event for message in messages()] == ["approval.requested", "approval.reminder"]
    assert requests()[1]["reminder"] == 1
    await ax.approve(asking.task.agent_id, "call_1")
    assert sweep.run_once(late + timedelta(days=1)) == 0
    assert (await asking.attempt()).final_output == "Done."


async def test_reminders_end(registry: Registry) -> None:
    registry.add("research", tell)
    asking = Asking(ax.ApprovalPolicy(reminder=60))
    await asking.waits()
    sweep = notices(registry)
    told = [sweep.run_once(utc_now() + timedelta(minutes=2 * number)) for number in range(MAX_NOTICES + 5)]
    assert sum(told) == MAX_NOTICES


async def test_hosts_beside_each_other_tell_once(registry: Registry) -> None:
    registry.add("research", tell)
    asking = Asking(ax.ApprovalPolicy(webhook=URL))
    await asking.waits()
    now = utc_now()
    await asyncio.gather(*(asyncio.to_thread(notices(registry).run_once, now) for _ in range(4)))
    notices(registry).run_once(now)
    assert (len(requests()), len(messages())) == (1, 1)


async def test_nobody_is_told_of_what_is_decided_or_of_what_nobody_listens_to(registry: Registry) -> None:
    registry.add("research", tell)
    quiet = Asking(ax.ApprovalPolicy(), has_hooks=False)
    await quiet.waits()
    decided = Asking(ax.ApprovalPolicy(webhook=URL))
    await ax.approvals.add_rule("send", [], task=decided.task.agent_id)
    assert (await decided.attempt()).final_output == "Done."
    gone = Asking(ax.ApprovalPolicy(webhook=URL))
    await gone.waits()
    await ax.cancel(gone.task.agent_id)
    sweep = notices(registry)
    assert (sweep.run_once(), requests(), messages()) == (0, [], [])
    with RUNTIME.engine.connect() as connection:
        assert set(connection.execute(select(Approval.notice_at)).scalars()) == {None}


async def test_a_task_of_another_module_is_left_to_its_hosts_for_a_while(registry: Registry) -> None:
    await Asking(ax.ApprovalPolicy(webhook=URL)).waits()
    now = utc_now()
    assert (notices(registry).run_once(now), messages()) == (0, [])
    notices(registry).run_once(now + timedelta(minutes=2))
    assert len(messages()) == 1


@pytest.mark.parametrize("default", ["reject", "approve"])
async def test_the_default_is_the_answer_once_the_time_is_over(default: Any) -> None:
    asking = Asking(ax.ApprovalPolicy(timeout=timedelta(hours=1), default=default))
    await asking.waits()
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Approval).values(expires_at=utc_now()))
    assert not await ax.approve(asking.task.agent_id, "call_1"), "too late"
    result = (await asking.attempt()).to_input_list()
    assert (await asking.attempt()).to_input_list() == result
    outputs = [item["output"] for item in result if item.get("type") == "function_call_output"]
    approved = default == "approve"
    assert (asking.done, outputs) == ((["Ann"], ["sent"]) if approved else ([], [APPROVAL_EXPIRED_MESSAGE]))
    with Session(RUNTIME.engine) as db:
        [call] = ax.approvals.list(db, asking.task.agent_id, state="decided")
    assert (call.status, call.decided_from) == ("approved" if approved else "expired", "time-out")
    verb = "Approved" if approved else "Rejected"
    assert asking.task.messages().count(f'{verb} by the time-out: send({{"to":"Ann"}})') == 1


async def test_a_runners_time_out_takes_precedence() -> None:
    asking = Asking(ax.ApprovalPolicy(timeout=60), approval_timeout=3600)
    await asking.waits()
    with Session(RUNTIME.engine) as db:
        [call] = ax.approvals.list(db)
    assert call.expires_at is not None
    assert timedelta(minutes=50) < call.expires_at - call.created_at < timedelta(minutes=70)

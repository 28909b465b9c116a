"""Approvals for teams: changed arguments, rules that answer, and who decided, from where and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from agents import Agent, FunctionTool, ToolOutputText, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLabel
from agentexec.activity.queries.labels import label_rows
from agentexec.arguments.actors import source_on_host
from agentexec.client import approval_rules as client
from agentexec.db.clock import utc_now
from agentexec.errors import WaitingForApproval
from agentexec.journal import approvals
from agentexec.journal.models import Approval, ApprovalRule, JournalEntry
from agentexec.journal.questions import EDITED
from agentexec.runners.openai.tools import INTERRUPTED_MESSAGE
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

DONE = [assistant_message("Done.")]


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def task(database: None) -> ReplayableTask:
    return ReplayableTask()


class Bank:
    """A handler whose agent refunds money, and what was refunded."""

    def __init__(self, task: ReplayableTask, turns: list[list[Any]], **options: Any) -> None:
        self.task = task
        self.paid: list[tuple[str, float]] = []
        self.options = options
        self.model = ScriptedModel(turns)
        self.agent = Agent("Clerk", model=self.model, tools=[self.refund()])

    def refund(self) -> FunctionTool:
        @function_tool(needs_approval=True)
        async def refund(to: str, amount: float) -> str:
            """Refund money."""
            self.paid.append((to, amount))
            return f"refunded {amount:g}"

        return refund

    async def handler(self) -> Any:
        return await ax.OpenAIRunner(self.task.agent_id, **self.options).run(self.agent, "Go.")

    async def attempt(self) -> Any:
        return await self.task.attempt(self.handler)

    async def waits(self) -> None:
        with pytest.raises(WaitingForApproval):
            await self.attempt()


def pay(to: str, amount: float, call_id: str = "call_1") -> Any:
    return function_call("refund", {"to": to, "amount": amount}, call_id=call_id)


def outputs(result: Any) -> dict[str, Any]:
    items = result.to_input_list()
    return {item["call_id"]: item["output"] for item in items if item.get("type") == "function_call_output"}


def calls(task: ReplayableTask, state: Any = "decided") -> list[ax.approvals.ApprovalSchema]:
    with Session(RUNTIME.engine) as db:
        return ax.approvals.list(db, task.agent_id, state=state)


def rules(**options: Any) -> list[ax.approvals.ApprovalRuleSchema]:
    with Session(RUNTIME.engine) as db:
        return ax.approvals.rules(db, **options)


def label(task: ReplayableTask, **labels: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        created_at = connection.execute(
            select(Activity.created_at).where(Activity.agent_id == task.agent_id)
        ).scalar()
        for name, value in label_rows(labels):
            row = {"agent_id": task.agent_id, "name": name, "value": value, "created_at": created_at}
            connection.execute(insert(ActivityLabel).values(row))


async def test_a_call_runs_with_the_arguments_of_the_person_who_approved_it(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 500)], DONE])
    await bank.waits()
    changed = {"to": "Ann", "amount": 50}
    options = {"by": "alice", "source": "slack #ops", "reason": "Too much."}
    assert await ax.approve(task.agent_id, "call_1", arguments=changed, **options)
    result = await bank.attempt()
    assert bank.paid == [("Ann", 50)]
    note = 'A person approved this call with changed arguments. It was made with {"to":"Ann","amount":50} and returned:'
    assert outputs(result) == {"call_1": f"{note}\nrefunded 50"}
    [call] = calls(task)
    assert (call.status, call.edited, call.arguments) == ("approved", True, '{"to":"Ann","amount":500}')
    assert (call.decided_arguments, call.decided_by) == ('{"to":"Ann","amount":50}', "alice")
    assert (call.decided_from, call.reason) == ("slack #ops", "Too much.")
    assert task.messages()[-2] == (
        'Approved by alice (slack #ops) with changed arguments {"to":"Ann","amount":50}: '
        'refund({"to":"Ann","amount":500}) Reason: Too much.'
    )

    again = await bank.attempt()
    assert again.to_input_list() == result.to_input_list()
    assert (bank.paid, len(bank.model.calls)) == ([("Ann", 50)], 2)


async def test_a_changed_call_that_was_cut_off_tells_what_it_was(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 500)], DONE, DONE])
    await bank.waits()
    await ax.approve(task.agent_id, "call_1", arguments={"to": "Ann", "amount": 50})
    await bank.attempt()
    facts = task.journal()
    [made] = [number for number, (_, _, kind) in enumerate(facts) if kind == "intent"]
    task.delete_entries([(path, seq) for path, seq, _ in facts[made + 1 :]])
    result = await bank.attempt()
    note = 'A person approved this call with changed arguments. It was made with {"to":"Ann","amount":50}. '
    assert outputs(result) == {"call_1": note + INTERRUPTED_MESSAGE}
    assert bank.paid == [("Ann", 50)]


async def test_changed_arguments_survive_a_crash_at_every_fact(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 500), pay("Bob", 1, "call_2")], DONE], tool_policy="idempotent")
    await bank.waits()
    await ax.approve(task.agent_id, "call_1", arguments={"to": "Cid", "amount": 5})
    await ax.approve(task.agent_id, "call_2")
    result = (await bank.attempt()).to_input_list()
    facts = task.journal()
    for kept in range(2, len(facts)):
        task.delete_entries([(path, seq) for path, seq, _ in facts[kept:]])
        bank.agent = Agent("Clerk", model=ScriptedModel([DONE]), tools=[bank.refund()])
        assert (await bank.attempt()).to_input_list() == result, kept
    assert set(bank.paid) == {("Cid", 5), ("Bob", 1)}


async def test_arguments_that_the_tool_does_not_take_are_refused(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 500)], DONE])
    await bank.waits()
    for odd in ({"to": "Ann"}, {"to": "Ann", "amount": "much"}, {"to": "Ann", "amount": 1, "x": 2}):
        with pytest.raises(ax.UsageError, match="does not take these arguments"):
            await ax.approve(task.agent_id, "call_1", arguments=odd)
    with pytest.raises(ax.UsageError):
        await ax.approve(task.agent_id, "call_1", arguments=[1])  # type: ignore[arg-type]
    assert [call.status for call in calls(task, "all")] == ["pending"]
    assert await ax.approve(task.agent_id, "call_1", arguments={"amount": 500.0, "to": "Ann"})
    await bank.attempt()
    assert not calls(task)[0].edited, "the same arguments are no change"


async def test_a_worker_of_an_earlier_release_takes_changed_arguments_for_a_rejection(
    task: ReplayableTask,
) -> None:
    await Bank(task, [[pay("Ann", 500)], DONE]).waits()
    await ax.approve(task.agent_id, "call_1", arguments={"to": "Ann", "amount": 5})
    with RUNTIME.engine.connect() as connection:
        assert connection.execute(select(Approval.status)).scalars().all() == [EDITED]


async def test_questions_without_a_schema_cannot_be_changed_or_have_a_rule(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 500)], DONE])
    await bank.waits()
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Approval).values(arguments_schema=None))
    with pytest.raises(ax.UsageError, match="cannot be changed"):
        await ax.approve(task.agent_id, "call_1", arguments={"to": "Bob"})
    with pytest.raises(ax.UsageError, match="No rule"):
        await ax.approve(task.agent_id, "call_1", rule=ax.AllLikeIt())
    assert await ax.reject(task.agent_id, "call_1")


async def test_parts_of_an_output_keep_their_form(task: ReplayableTask) -> None:
    bank = Bank(task, [[function_call("look", {"at": "a"}, call_id="call_1")], DONE])

    @function_tool(needs_approval=True)
    async def look(at: str) -> ToolOutputText:
        """Look at something."""
        return ToolOutputText(text=at)

    bank.agent.tools = [look]
    await bank.waits()
    await ax.approve(task.agent_id, "call_1", arguments={"at": "b"})
    output = outputs(await bank.attempt())["call_1"]
    assert [part["text"].partition(".")[0] for part in output] == [
        "A person approved this call with changed arguments",
        "b",
    ]
    assert outputs(await bank.attempt())["call_1"] == output


async def test_the_inner_call_of_an_agent_tool_can_be_changed(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 500, "inner")], DONE])
    outer = ScriptedModel([[function_call("ask", {"input": "x"}, call_id="outer")], DONE])
    bank.agent = Agent("Boss", model=outer, tools=[bank.agent.as_tool("ask", "Ask.")])
    await bank.waits()
    await ax.approve(task.agent_id, "inner", arguments={"to": "Bob", "amount": 1})
    assert (await bank.attempt()).final_output == "Done."
    assert (await bank.attempt()).final_output == "Done."
    assert bank.paid == [("Bob", 1)]


@pytest.mark.parametrize(
    "rule",
    [ax.AllLikeIt(["amount<=10"]), ax.AllLikeIt([], tool="read_*"), ax.AllLikeIt(["to=Bob"])],
)
async def test_a_rule_about_other_calls_than_the_approved_one_is_refused(
    task: ReplayableTask, rule: ax.AllLikeIt
) -> None:
    await Bank(task, [[pay("Ann", 500)], DONE]).waits()
    with pytest.raises(ax.UsageError, match="does not match the call"):
        await ax.approve(task.agent_id, "call_1", arguments={"to": "Ann", "amount": 50}, rule=rule)
    assert [call.status for call in calls(task, "all")] == ["pending"]
    assert rules() == []
    # Either the model's arguments or the changed ones are enough.
    rule = ax.AllLikeIt(["amount>=500"])
    assert await ax.approve(task.agent_id, "call_1", arguments={"to": "Ann", "amount": 50}, rule=rule)


async def test_all_like_it_are_approved_without_asking(task: ReplayableTask) -> None:
    turns = [[pay("Ann", 50)], [pay("Bob", 99, "call_2")], [pay("Cid", 101, "call_3")], DONE]
    bank = Bank(task, turns)
    await bank.waits()
    rule = ax.AllLikeIt(["amount<=100"])
    assert await ax.approve(task.agent_id, "call_1", rule=rule, by="alice", reason="Small.", source="here")
    await bank.waits()
    assert bank.paid == [("Ann", 50), ("Bob", 99)]
    third, second, first = calls(task, "all")
    assert (third.call_id, third.status) == ("call_3", "pending")
    [made] = rules()
    assert (made.scope, made.agent_id, made.where, made.tool) == (
        "task",
        task.agent_id,
        ["amount<=100"],
        "refund",
    )
    assert (made.created_by, made.created_from, made.reason, made.active) == ("alice", "here", "Small.", True)
    assert (second.status, second.decided_by, second.decided_from) == (
        "approved",
        "alice",
        f"rule {made.rule_id}",
    )
    assert (second.rule_id, first.rule_id, second.reason) == (made.rule_id, made.rule_id, "Small.")
    assert f'Approved by rule {made.rule_id} of alice: refund({{"to":"Bob","amount":99}})' in task.messages()
    assert await ax.approvals.revoke_rule(made.rule_id, by="bob")
    assert not await ax.approvals.revoke_rule(made.rule_id)
    assert rules() == []
    [ended] = rules(ended=True)
    assert (ended.revoked_by, ended.active) == ("bob", False)
    await ax.reject(task.agent_id, "call_3")
    assert (await bank.attempt()).final_output == "Done.", "what a rule has approved stays approved"


async def test_without_conditions_only_the_same_arguments_match(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 50)], [pay("Ann", 50, "call_2")], [pay("Ann", 51, "call_3")], DONE])
    await bank.waits()
    assert await ax.approve(task.agent_id, "call_1", rule=ax.AllLikeIt())
    await bank.waits()
    assert bank.paid == [("Ann", 50)] * 2
    assert rules()[0].arguments == {"to": "Ann", "amount": 50}


@pytest.mark.parametrize("by_metadata", [False, True])
async def test_a_rule_is_about_the_tasks_of_its_scope(by_metadata: bool) -> None:
    tasks = [ReplayableTask(), ReplayableTask(), ReplayableTask()]
    scope: Any = {"tenant": "acme"} if by_metadata else "conversation"
    for number, task in enumerate(tasks):
        tenant = "acme" if number < 2 else "other"
        label(task, **({"tenant": tenant} if by_metadata else {f"agentexec.session:{tenant}": ""}))
    banks = [Bank(task, [[pay("Ann", 50)], DONE]) for task in tasks]
    await banks[0].waits()
    await ax.approve(tasks[0].agent_id, "call_1", rule=ax.AllLikeIt([], scope=scope))
    assert (await banks[1].attempt()).final_output == "Done."
    await banks[2].waits()


@pytest.mark.parametrize("alone", [False, True])
async def test_a_new_rule_answers_the_questions_that_wait_already(alone: bool) -> None:
    tasks = [ReplayableTask() for _ in range(4)]
    for number, task in enumerate(tasks):
        label(task, tenant="other" if number == 3 else "acme")
    small = [pay("Ann", 50), pay("Bob", 60, "call_2")]
    turns = [[pay("Ann", 50)], small, [pay("Ann", 70), pay("Bob", 500, "call_2")], [pay("Ann", 50)]]
    banks = [Bank(task, [turn, DONE]) for task, turn in zip(tasks, turns, strict=True)]
    for bank in banks:
        await bank.waits()
    scope = {"tenant": "acme"}
    if alone:
        await ax.approvals.add_rule("refund", ["amount<=100"], scope=scope, by="alice", reason="Small.")
    else:
        rule = ax.AllLikeIt(["amount<=100"], scope=scope)
        await ax.approve(tasks[0].agent_id, "call_1", rule=rule, by="alice", reason="Small.")
    [made] = rules()
    assert [len(calls(task)) for task in tasks] == [1, 2, 1, 0]
    for call in (*calls(tasks[1]), *calls(tasks[2])):
        assert (call.status, call.rule_id, call.decided_by) == ("approved", made.rule_id, "alice")
        assert (call.decided_from, call.reason) == (f"rule {made.rule_id}", "Small.")
    line = f'Approved by rule {made.rule_id} of alice: refund({{"to":"Bob","amount":60}})'
    assert line in tasks[1].messages()
    for bank in banks[:2]:
        assert (await bank.attempt()).final_output == "Done."
    for bank in banks[2:]:
        await bank.waits()


async def test_a_rule_and_a_question_of_the_same_moment_find_each_other(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is saved after its maker looked for questions, and after the task looked for rules."""
    look = approvals.find_rules
    late = [ax.approvals.add_rule_sync]

    def find_rules(connection: Any, agent_id: Any, now: Any) -> list[Any]:
        found = look(connection, agent_id, now)
        return found if not late else []

    ask = approvals._ask

    def ask_once(*arguments: Any) -> Any:
        answer = ask(*arguments)
        if late:
            monkeypatch.setattr(client, "answer_by_rule", lambda *_: ([], None))
            late.pop()("refund", [], task=task.agent_id)
        return answer

    monkeypatch.setattr(approvals, "find_rules", find_rules)
    monkeypatch.setattr(approvals, "_ask", ask_once)
    assert (await Bank(task, [[pay("Ann", 50)], DONE]).attempt()).final_output == "Done."


@pytest.mark.parametrize("damaged", ["nonsense", "null"])
async def test_a_rule_that_has_expired_or_cannot_be_read_matches_nothing(
    task: ReplayableTask, damaged: str
) -> None:
    turns = [[pay("Ann", 50)], [pay("Ann", 50, "call_2")], [pay("Ann", 50, "call_3")], DONE]
    bank = Bank(task, turns)
    await bank.waits()
    await ax.approve(task.agent_id, "call_1", rule=ax.AllLikeIt([], expires=timedelta(hours=1)))
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(ApprovalRule).values(expires_at=utc_now()))
    await bank.waits()
    with RUNTIME.engine.begin() as connection:
        values = {"expires_at": utc_now() + timedelta(hours=1), "conditions": damaged}
        connection.execute(update(ApprovalRule).values(values))
    await ax.approve(task.agent_id, "call_2")
    await bank.waits()


async def test_arguments_that_cannot_be_read_match_no_rule(task: ReplayableTask) -> None:
    await ax.approvals.add_rule("*", [], task=task.agent_id)
    call = pay("Ann", 50)
    call.arguments = '{"to": "Ann", "amount": 1, "amount": 900}'
    bank = Bank(task, [[call], DONE])
    await bank.waits()
    with pytest.raises(ax.UsageError, match="cannot be compared"):
        await ax.approve(task.agent_id, "call_1", rule=ax.AllLikeIt())


async def test_a_tenants_rules_are_its_own(task: ReplayableTask) -> None:
    label(task, tenant="acme", plan="pro")
    fence = {"tenant": "acme"}
    with pytest.raises(ax.UsageError, match="another value"):
        await ax.approvals.add_rule("refund", [], scope={"tenant": "other"}, metadata_filter=fence)
    with pytest.raises(ax.UsageError, match="everybody"):
        await ax.approvals.add_rule("refund", [], scope={})
    rule = await ax.approvals.add_rule("refund", [], scope={"plan": "pro"}, metadata_filter=fence)
    wide = await ax.approvals.add_rule("refund", [], scope={"plan": "pro"})
    assert [found.rule_id for found in rules(metadata_filter=fence)] == [rule]
    assert [found.rule_id for found in rules()] == [wide, rule]
    assert rules(metadata_filter=fence)[0].metadata == {"tenant": "acme", "plan": "pro"}
    for metadata_filter in ({"tenant": "other"}, {"plan": "free"}):
        with pytest.raises(ax.ApprovalRuleNotFoundError):
            await ax.approvals.revoke_rule(rule, metadata_filter=metadata_filter)
    other = ReplayableTask()
    label(other, tenant="other", plan="pro")
    assert await ax.approvals.revoke_rule(wide)
    await Bank(other, [[pay("Ann", 50)], DONE]).waits()
    assert (await Bank(task, [[pay("Ann", 50)], DONE]).attempt()).final_output == "Done."


@pytest.mark.parametrize(
    "options",
    [
        {"expires": 0},
        {"expires": timedelta(days=400)},
        {"where": ["nonsense"]},
        {"where": "a=1"},
        {"scope": "everything"},
        {"scope": "conversation"},
        {"scope": {"tenant": "acme"}},
        {"tool": ""},
    ],
)
async def test_odd_rules_are_refused_and_decide_nothing(
    task: ReplayableTask, options: dict[str, Any]
) -> None:
    bank = Bank(task, [[pay("Ann", 50)], DONE])
    await bank.waits()
    with pytest.raises(ax.UsageError):
        await ax.approve(task.agent_id, "call_1", rule=ax.AllLikeIt(**options))
    assert [call.status for call in calls(task, "all")] == ["pending"]
    assert rules(ended=True) == []


async def test_a_decision_says_from_where_it_came(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 50)], DONE])
    await bank.waits()
    assert await ax.reject(task.agent_id, "call_1", message="No.", reason="Fraud\nlikely")
    [call] = calls(task)
    assert (call.status, call.decided_by, call.decided_from) == ("rejected", None, source_on_host("code"))
    assert (call.message, call.reason) == ("No.", "Fraud likely")
    assert outputs(await bank.attempt()) == {"call_1": "No."}


async def test_the_intent_has_the_arguments_that_ran(task: ReplayableTask) -> None:
    bank = Bank(task, [[pay("Ann", 500)], DONE])
    await bank.waits()
    await ax.approve(task.agent_id, "call_1", arguments={"to": "Bob", "amount": 5})
    await bank.attempt()
    with RUNTIME.engine.connect() as connection:
        query = select(JournalEntry.value).where(JournalEntry.kind == "intent")
        intent = json.loads(connection.execute(query).scalar_one())
    assert json.loads(intent["arguments"]) == {"to": "Bob", "amount": 5}

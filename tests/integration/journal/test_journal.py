"""The journal: fenced appends, steps, transactions and usage."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Usage, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from pydantic import BaseModel
from sqlalchemy import create_engine, delete, func, select, text
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLog
from agentexec.db.clock import utc_now
from agentexec.errors import JournalConflictError, UnavailableError
from agentexec.journal.canonical import digest
from agentexec.journal.facts import Fact, FactKind, dump, fit_path
from agentexec.journal.models import JournalEntry
from agentexec.journal.store import Append, JournalStore, load_facts
from agentexec.journal.stores import journal_store
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from tests.attempts import ReplayableTask
from tests.tables import PARTITIONED


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    with RUNTIME.engine.begin() as connection:
        connection.execute(text("CREATE TABLE payment (topic VARCHAR(50))"))
    yield
    with RUNTIME.engine.begin() as connection:
        connection.execute(text("DROP TABLE payment"))
    RUNTIME.close()


@pytest.fixture
def task(database: None) -> ReplayableTask:
    return ReplayableTask()


def payments() -> list[str]:
    with RUNTIME.engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT topic FROM payment")))


def fact(path: str = "a", seq: int = 0, value: str = "{}") -> Fact:
    return Fact(path, seq, FactKind.RUN, "hash", value)


def put(task: ReplayableTask, entry: Fact, epoch: int | None = None) -> None:
    lease = Lease(task.agent_id, task.epoch if epoch is None else epoch)
    journal_store().append(lease, entry, None, utc_now())


class Runner(ax.BaseAgentRunner):
    """A runner without any SDK."""

    async def run(self, agent: Any, input: Any) -> Any:
        return await self.step("think", agent, input)


# ---- the store ---------------------------------------------------------------------------------------------


def test_only_the_worker_that_holds_the_task_appends(
    task: ReplayableTask, caplog: pytest.LogCaptureFixture
) -> None:
    task.take_over()
    put(task, fact())
    task.take_over()
    with pytest.raises(ax.LeaseLostError, match="no longer holds task"):
        put(task, fact("b"), epoch=1)
    with pytest.raises(
        ax.LeaseLostError
    ):  # It must not learn that its fact is recorded, or it would act on it.
        put(task, fact(), epoch=1)
    ax.activity.complete(task.agent_id)
    with pytest.raises(ax.LeaseLostError):
        put(task, fact("b"))
    assert [entry.path for entry in load_facts(RUNTIME.engine, task.agent_id)] == ["a"]
    assert caplog.text == "", "a lost lease is not logged as a database error"


def test_a_fact_is_recorded_once_however_often_its_commit_is_tried(task: ReplayableTask) -> None:
    task.take_over()
    put(task, fact())
    put(task, fact())
    with pytest.raises(JournalConflictError, match="two different facts at a"):
        put(task, fact(value="[]"))
    assert len(load_facts(RUNTIME.engine, task.agent_id)) == 1


def test_paths_that_differ_only_in_case_or_a_trailing_space_are_distinct(task: ReplayableTask) -> None:
    task.take_over()
    for path in ("call_a", "call_A", "call_ä", "call_a "):
        put(task, fact(fit_path(path)))
    assert len(load_facts(RUNTIME.engine, task.agent_id)) == 4


@pytest.mark.skipif(PARTITIONED, reason="partitions have no foreign keys: prune deletes their rows")
def test_removing_an_activity_removes_its_journal(task: ReplayableTask) -> None:
    task.take_over()
    put(task, fact())
    with RUNTIME.engine.begin() as connection:
        connection.execute(delete(Activity).where(Activity.agent_id == task.agent_id))
        assert connection.scalar(select(func.count()).select_from(JournalEntry)) == 0


def test_retention_removes_the_journal_on_the_applications_own_connection_too(task: ReplayableTask) -> None:
    kept = ReplayableTask()
    for prunable in (task, kept):
        prunable.take_over()
        put(prunable, fact())
    ax.activity.complete(task.agent_id)
    engine = create_engine(RUNTIME.engine.url)  # on SQLite its foreign keys are off
    with Session(engine) as db:
        assert ax.activity.prune(db, timedelta()) == 1
    engine.dispose()
    assert load_facts(RUNTIME.engine, task.agent_id) == []
    assert len(load_facts(RUNTIME.engine, kept.agent_id)) == 1
    with RUNTIME.engine.connect() as connection:
        lines = select(func.count()).select_from(ActivityLog).where(ActivityLog.activity_id == task.agent_id)
        assert connection.scalar(lines) == 0


def test_any_text_of_a_model_can_be_stored_and_hashed(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.take_over()
    odd = {"text": "\x00 \ud83d ä 😀"}
    put(task, fact(value=dump(odd, "It")))
    assert json.loads(load_facts(RUNTIME.engine, task.agent_id)[0].value) == odd
    assert digest({"a": 1, "b": b"\xff"}) == digest({"b": b"\xff", "a": 1})
    assert digest(object()) == digest(object())
    monkeypatch.setattr(ax.CONF, "max_payload_bytes", 1024)
    with pytest.raises(ax.PayloadTooLargeError, match="It is 2002 bytes"):
        dump("x" * 2000, "It")


async def test_an_append_waits_while_the_database_is_unavailable(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([True, True, False, False])
    real = JournalStore.append

    def away(*_: Any) -> frozenset[int]:
        raise UnavailableError("The database is unavailable.")

    def flaky(*arguments: Any) -> None:
        if next(failures):
            away()
        real(*arguments)

    monkeypatch.setattr(JournalStore, "append_together", away)
    monkeypatch.setattr(JournalStore, "append", flaky)
    assert await task.attempt(lambda: Runner(task.agent_id).step("one", lambda: 1)) == 1
    assert caplog.text.count("waits until it is back") == 1


# ---- steps -------------------------------------------------------------------------------------------------


class Point(BaseModel):
    x: int


async def test_a_step_runs_once(task: ReplayableTask) -> None:
    calls: list[Any] = []

    def fetch(*arguments: Any) -> dict[str, Any]:
        calls.append((arguments, threading.current_thread() is threading.main_thread()))
        return {"got": arguments}

    async def handler() -> list[Any]:
        runner = Runner(task.agent_id)
        return [
            await runner.step("fetch", fetch, 1),
            await runner.step("fetch", fetch, 2),
            await runner.run(fetch, 3),
        ]

    first, again = await task.attempt(handler), await task.attempt(handler)
    assert first == again == [{"got": [1]}, {"got": [2]}, {"got": [3]}]
    assert calls == [((1,), False), ((2,), False), ((3,), False)]


async def test_a_steps_value_has_its_type_in_every_attempt(task: ReplayableTask) -> None:
    async def make() -> Point:
        return Point(x=1)

    async def handler() -> Any:
        return await Runner(task.agent_id).step("make", make, result_type=Point)

    assert await task.attempt(handler) == await task.attempt(handler) == Point(x=1)


async def test_a_step_with_other_arguments_is_another_step_or_a_divergence(task: ReplayableTask) -> None:
    async def handler(value: int) -> Any:
        return await Runner(task.agent_id).step("fetch", lambda given: given, value)

    await task.attempt(lambda: handler(1))
    with pytest.raises(ax.ReplayDiverged, match="the step fetch"):
        await task.attempt(lambda: handler(2))


async def test_branches_may_reach_their_steps_in_any_order(task: ReplayableTask) -> None:
    fetched: list[int] = []

    async def branch(value: int, delay: float) -> Any:
        await asyncio.sleep(delay)
        return await Runner(task.agent_id).step("fetch", lambda given: fetched.append(given) or given, value)

    async def handler(first: float, second: float) -> Any:
        return await asyncio.gather(branch(2, first), branch(3, second))

    with pytest.raises(TimeoutError):
        await task.attempt(lambda: asyncio.wait_for(handler(60, 0), 0.5))
    assert fetched == [3]
    assert await task.attempt(lambda: handler(0, 0.1)) == [2, 3]
    assert await task.attempt(lambda: handler(0.1, 0)) == [2, 3]
    assert fetched == [3, 2]


@pytest.mark.parametrize("policy", [None, "fail"])
async def test_a_step_that_was_cut_off_is_not_repeated_unless_its_policy_allows_it(
    task: ReplayableTask, policy: Any
) -> None:
    calls: list[int] = []

    async def handler(policy: Any) -> Any:
        return await Runner(task.agent_id).step("pay", lambda: calls.append(1), policy=policy)

    await task.attempt(lambda: handler(policy))
    task.delete_entries([("step:pay#1", 1)])
    with pytest.raises(ax.CallInterruptedError, match="The step pay was cut off"):
        await task.attempt(lambda: handler(policy))
    await task.attempt(lambda: handler("idempotent"))
    assert calls == [1, 1]


async def test_a_step_that_raised_runs_again(task: ReplayableTask) -> None:
    calls: list[int] = []

    def flaky() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("no luck")
        return 7

    async def handler() -> Any:
        return await Runner(task.agent_id).step("flaky", flaky)

    with pytest.raises(ValueError, match="no luck"):
        await task.attempt(handler)
    assert await task.attempt(handler) == 7


class PanicError(BaseException):
    """An error as extensions in Rust raise it."""


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (asyncio.CancelledError(), asyncio.CancelledError),
        (GeneratorExit(), RuntimeError),
        (StopIteration(), RuntimeError),
        (PanicError(), PanicError),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("plain", [True, False])
async def test_a_step_that_raised_whatever_it_is_runs_again(
    task: ReplayableTask, error: BaseException, raised: type[BaseException], plain: bool
) -> None:
    calls: list[int] = []

    def flaky() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return len(calls)

    async def flaky_async() -> int:
        return flaky()

    async def handler() -> int:
        return await Runner(task.agent_id).step("flaky", flaky if plain else flaky_async)

    with pytest.raises(raised):
        await task.attempt(handler)
    assert await task.attempt(handler) == 2
    assert [kind for _, _, kind in task.journal()] == ["intent", "raised", "intent", "outcome"]


@pytest.mark.parametrize("branch", [True, False])
async def test_a_step_that_is_canceled_with_its_task_counts_as_cut_off(
    task: ReplayableTask, branch: bool
) -> None:
    started = asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.sleep(60)

    async def handler() -> None:
        step = Runner(task.agent_id).step("slow", slow)
        await (asyncio.gather(step) if branch else step)

    attempt = asyncio.create_task(task.attempt(handler))
    await started.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert [kind for _, _, kind in task.journal()] == ["intent"]
    with pytest.raises(ax.CallInterruptedError):
        await task.attempt(handler)


async def test_outside_a_task_a_step_is_a_plain_call(task: ReplayableTask) -> None:
    assert await Runner(task.agent_id).step("one", lambda: Point(x=1)) == Point(x=1)
    assert task.journal() == []


async def test_an_unknown_policy_is_refused(task: ReplayableTask) -> None:
    with pytest.raises(ax.UsageError, match="idempotent, ask, fail, transactional"):
        ax.tool_policy("twice")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ax.UsageError, match="'twice'"):
        ax.OpenAIRunner(task.agent_id, tool_policy="twice")  # ty: ignore[invalid-argument-type]


# ---- transactions ------------------------------------------------------------------------------------------


def pay(session: Session, topic: str) -> None:
    session.execute(text("INSERT INTO payment VALUES (:topic)"), {"topic": topic})


def paying_agent(tool: Any, *topics: str) -> Agent[Any]:
    calls = [function_call("buy", {"topic": topic}, call_id=f"call_{topic}") for topic in topics]
    return Agent("Buyer", model=ScriptedModel([calls, [assistant_message("Done.")]]), tools=[tool])


@ax.tool_policy("transactional")
@function_tool(name_override="buy")
def buy_in_thread(topic: str) -> str:
    with ax.transaction() as session:
        pay(session, topic)
        session.commit()
    return f"bought {topic}"


@ax.tool_policy("transactional")
@function_tool(name_override="buy")
async def buy_on_the_loop(topic: str) -> str:
    with ax.transaction() as session:
        pay(session, topic)
    return f"bought {topic}"


@pytest.mark.parametrize("tool", [buy_in_thread, buy_on_the_loop])
async def test_a_tools_effect_and_outcome_are_committed_together(task: ReplayableTask, tool: Any) -> None:
    agent = paying_agent(tool, "book")
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    agent.model = ScriptedModel()
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert payments() == ["book"]


@pytest.mark.parametrize("tool", [buy_in_thread, buy_on_the_loop])
async def test_the_transaction_of_a_worker_that_lost_its_task_is_rolled_back(
    task: ReplayableTask, tool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is taken over after the tool's intent, so only the commit can notice."""
    real = JournalStore.append_together

    def taken_over(store: JournalStore, appends: Sequence[Append]) -> frozenset[int]:
        recorded = real(store, appends)
        if appends[0].fact.kind is FactKind.INTENT:
            task.take_over()
        return recorded

    monkeypatch.setattr(JournalStore, "append_together", taken_over)
    with pytest.raises(ax.LeaseLostError):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(paying_agent(tool, "book")))
    assert payments() == []
    monkeypatch.undo()
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(paying_agent(tool, "book")))
    assert payments() == ["book"]


@pytest.mark.parametrize("inside", [True, False])
async def test_an_error_rolls_the_effect_back(task: ReplayableTask, inside: bool) -> None:
    @ax.tool_policy("transactional")
    @function_tool
    def buy(topic: str) -> str:
        with ax.transaction() as session:
            pay(session, topic)
            if inside:
                raise ValueError("no money")
        raise ValueError("no receipt")

    result = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(paying_agent(buy, "book")))
    assert payments() == []
    assert "error" in result.to_input_list()[2]["output"]


async def test_parallel_transactions_do_not_deadlock(task: ReplayableTask) -> None:
    """On SQLite each holds the only write lock until its tool returns, while other calls append."""
    topics = [f"book{number}" for number in range(6)]
    started = time.monotonic()

    @function_tool
    async def note(topic: str) -> str:
        return topic

    calls = [
        function_call(("buy", "sell", "note")[n % 3], {"topic": t}, call_id=t)
        for n, t in enumerate(topics * 3)
    ]
    for number, call in enumerate(calls):
        call.call_id = f"c{number}"
    sell = dataclasses.replace(buy_in_thread, name="sell")
    agent = Agent(
        "Buyer",
        model=ScriptedModel([calls, [assistant_message("Done.")]]),
        tools=[buy_on_the_loop, ax.tool_policy("transactional")(sell), note],
    )
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert len(payments()) == 12
    assert time.monotonic() - started < 9, "a lock is waited for during 10 s"


async def test_a_step_may_be_a_transaction(task: ReplayableTask) -> None:
    def transfer(topic: str) -> str:
        with ax.transaction() as session:
            pay(session, topic)
        return topic

    await task.attempt(
        lambda: Runner(task.agent_id).step("transfer", transfer, "pen", policy="transactional")
    )
    assert payments() == ["pen"]


async def test_an_error_that_ends_the_run_rolls_the_effect_back(task: ReplayableTask) -> None:
    async def buy(topic: str) -> str:
        with ax.transaction() as session:
            pay(session, topic)
        raise ValueError("no receipt")

    tool = ax.tool_policy("transactional")(function_tool(buy, failure_error_function=None))
    started = time.monotonic()
    with pytest.raises(Exception, match="no receipt"):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(paying_agent(tool, "book")))
    assert payments() == []
    assert time.monotonic() - started < 9, "a lock is waited for during 10 s"


async def test_only_transactional_calls_may_open_a_transaction(task: ReplayableTask) -> None:
    def transfer() -> None:
        with ax.transaction():
            pass

    with pytest.raises(ax.UsageError, match="transactional"):
        await task.attempt(lambda: Runner(task.agent_id).step("transfer", transfer))
    with pytest.raises(ax.UsageError, match="inside a tool or a step"):
        transfer()


async def test_without_a_task_a_transaction_commits_by_itself(task: ReplayableTask) -> None:
    await ax.OpenAIRunner(task.agent_id).run(paying_agent(buy_on_the_loop, "book"))
    assert payments() == ["book"]


# ---- usage -------------------------------------------------------------------------------------------------


def used(requests: int, tokens: int) -> ModelStep:
    details: Any = {"input_tokens_details": {"cached_tokens": tokens // 2, "cache_write_tokens": 0}}
    usage = Usage(
        requests=requests, input_tokens=tokens, output_tokens=10, total_tokens=tokens + 10, **details
    )
    return ModelStep([assistant_message("Done.")], usage=usage)


class Named(ScriptedModel):
    model = "gpt-4o"


async def test_usage_is_recorded_once_together_with_its_response(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent("Researcher", model=Named([used(1, 1000), used(2, 500)]))

    async def handler() -> None:
        runner = ax.OpenAIRunner(task.agent_id)
        await runner.run(agent, "One.")
        await runner.run(agent, "Two.")

    await task.attempt(handler)
    await task.attempt(handler)
    detail = task.detail()
    assert detail.usage.model_dump() == {
        "requests": 3, "input_tokens": 1500, "cached_tokens": 750, "output_tokens": 20,
    }  # fmt: skip
    assert detail.usage_by_model["gpt-4o"] == detail.usage
    assert detail.cost == pytest.approx((750 * 2.5 + 750 * 1.25 + 20 * 10) / 1e6), "by the shipped list"
    monkeypatch.setattr(
        ax.CONF, "model_prices", {"gpt-4o": {"input": 2.0, "cached_input": 1.0, "output": 10.0}}
    )
    assert task.detail().cost == pytest.approx((750 * 2 + 750 * 1 + 20 * 10) / 1e6)
    with Session(RUNTIME.engine) as db:
        assert ax.activity.list(db).items[0].usage == detail.usage
    serialized = json.loads(detail.model_dump_json())
    assert serialized["usage"]["requests"] == 3
    assert "input_tokens" not in serialized


def test_an_activity_without_model_calls_has_used_nothing(tmp_path: Path) -> None:
    agent_id: UUID = ax.activity.create("plain")
    with Session(RUNTIME.engine) as db:
        detail = ax.activity.detail(db, agent_id=agent_id)
    assert (detail.usage.requests, detail.usage_by_model, detail.cost) == (0, {}, None)

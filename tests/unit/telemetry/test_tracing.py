"""A task is one trace: the call that enqueues it, each of its attempts, and what its agents do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import select, update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.config import CONF
from agentexec.runtime import RUNTIME
from agentexec.telemetry.tracing import MAX_CARRIER, Tracing
from agentexec.testing import harness
from tests.spans import Exported, attributes, ids

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    found = Exported()
    monkeypatch.setattr(CONF, "opentelemetry", True)
    monkeypatch.setattr(RUNTIME, "_tracing", Tracing(found.tracers, found.meters))
    yield found
    found.tracers.shutdown()


def flaky_pool() -> ax.Pool:
    pool = ax.Pool()
    tries: list[int] = []

    @pool.task("flaky", retries=1, backoff=0)
    def flaky(agent_id: UUID, context: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("password=hunter22 is wrong")

    return pool


def test_the_call_and_all_attempts_are_one_trace(telemetry: Exported) -> None:
    with (
        telemetry.tracers.get_tracer("web").start_as_current_span("GET /") as request,
        harness(flaky_pool()) as tasks,
    ):
        task = tasks.run("flaky")
    [send], [first, second] = telemetry.spans(SpanKind.PRODUCER), telemetry.spans(SpanKind.CONSUMER)
    trace_id = request.get_span_context().trace_id
    assert send.context and ids(send) == (trace_id, request.get_span_context().span_id)
    assert ids(first) == ids(second) == (trace_id, send.context.span_id)
    assert (send.name, first.name) == ("send flaky", "process flaky")
    assert attributes(send)["messaging.message.id"] == str(task.agent_id)
    assert attributes(first) == {
        "messaging.system": "agentexec",
        "messaging.destination.name": "agentexec_tasks",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": str(task.agent_id),
        "agentexec.task.name": "flaky",
        "agentexec.task.attempt": 1,
        "agentexec.attempt.outcome": "queued",
        "error.type": "ValueError",
    }
    assert first.status.status_code is StatusCode.ERROR and "hunter22" not in str(first.status.description)
    assert attributes(second)["agentexec.attempt.outcome"] == "complete"
    assert second.status.status_code is StatusCode.UNSET
    assert telemetry.counts() == {
        ("messaging.client.operation.duration", "send"): 1,
        ("messaging.client.sent.messages", "send"): 1,
        ("messaging.process.duration", "process"): 2,
        ("messaging.client.consumed.messages", "process"): 2,
    }


def test_children_are_in_the_trace_of_their_parent_and_many_tasks_share_a_span(telemetry: Exported) -> None:
    pool = ax.Pool()

    @pool.task("parent")
    async def parent(agent_id: UUID, context: Any) -> None:
        await ax.enqueue_many("child", [{"n": 1}, {"n": 2}])

    @pool.task("child")
    def child(agent_id: UUID, context: Any) -> None:
        pass

    with harness(pool) as tasks:
        tasks.run("parent")
        tasks.run_all()
    outer, inner = telemetry.spans(SpanKind.PRODUCER)
    assert attributes(inner)["messaging.batch.message_count"] == 2
    runs = telemetry.spans(SpanKind.CONSUMER)
    assert [run.name for run in runs] == ["process parent", "process child", "process child"]
    assert {ids(span)[0] for span in (outer, inner, *runs)} == {ids(outer)[0]}
    assert {ids(run)[1] for run in runs[1:]} == {inner.context and inner.context.span_id}


@pytest.mark.parametrize("stored", [None, "", "garbage", "00-0-0-00 x", PARENT[:-3]])
def test_without_a_trace_context_the_attempts_still_share_a_trace(
    telemetry: Exported, stored: str | None
) -> None:
    with harness(flaky_pool()) as tasks:
        task = tasks.enqueue("flaky")
        with RUNTIME.engine.begin() as connection:
            connection.execute(update(Activity).values(trace_context=stored))
        tasks.run_all()
    first, second = telemetry.spans(SpanKind.CONSUMER)
    assert ids(first)[0] == ids(second)[0] == task.agent_id.int


def test_a_task_that_no_call_enqueued_gets_a_span_of_its_own(telemetry: Exported) -> None:
    tracing = RUNTIME.tracing
    assert tracing is not None
    carrier = tracing.carrier("tick", "queue")
    [send] = telemetry.spans(SpanKind.PRODUCER)
    assert (
        send.context
        and carrier
        == f"00-{send.context.trace_id:032x}-{send.context.span_id:016x}-{send.context.trace_flags:02x}"
    )


def test_trace_state_goes_along_unless_it_is_too_long(telemetry: Exported) -> None:
    tracing = RUNTIME.tracing
    assert tracing is not None
    for state, kept in (
        ("vendor=1", "vendor=1"),
        ("a=" + "x" * 250 + ",b=" + "x" * 250 + ",c=" + "x" * 90, ""),
    ):
        with tracing.processing("t", UUID(int=7), 1, "queue", f"{PARENT} {state}"):
            carrier = tracing.carrier("child", "queue")
        assert carrier and carrier.startswith(PARENT[:36]) and len(carrier) <= MAX_CARRIER
        assert carrier.partition(" ")[2] == kept


def test_off_nothing_is_stored_and_no_library_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUNTIME, "_tracing", None)
    assert RUNTIME.tracing is None
    with harness(flaky_pool()) as tasks:
        tasks.run("flaky")
        with RUNTIME.engine.connect() as connection:
            assert connection.execute(select(Activity.trace_context)).scalars().all() == [None]
    assert RUNTIME._tracing is None

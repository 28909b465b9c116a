"""Foreign data in Redis or in rows: it harms the task it is about, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Uuid, bindparam, create_engine, insert, text, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityResult, Meta
from agentexec.activity.queries.overview import spent
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError
from agentexec.journal import store
from agentexec.journal.models import Approval, JournalEntry, TrackerCount
from agentexec.llm.rate_limits import RateLimits, parse_rate_limits
from agentexec.runtime import RUNTIME
from agentexec.state.redis_backend import RedisBackend, create
from agentexec.task import Entry, Priority, new_agent_id
from agentexec.testing.backend_suite.operations import LONG_LEASE, ids
from tests.conftest import DATABASES
from tests.deployment import Deploy, on_targets, run_in_process
from tests.waiting import patient

BOUNDED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
GARBAGE = "[" * 5_000

SETS = ("high", "low", "delayed", "leases")
TASKS = 4

members = st.one_of(
    st.integers(0, TASKS - 1),  # one of the real tasks
    st.binary(max_size=40),
    st.sampled_from([b"f" * 32, b"F" * 32, b"0x" + b"1" * 30, b"-" + b"1" * 31]),
)
marks = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [b"0h", b"3l", b"2147483646h", b"99999999999999999999h", b"1e9h", b"-1h", b"0x", b"0h.", b"h"]
    ),
    st.just(b"1h " + b"w" * 10_000),
)
deeds = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(SETS), members, st.floats(allow_nan=False)),
    st.tuples(st.just("mark"), st.just("entry"), members, marks),
    st.tuples(st.just("wake"), st.just("wake"), st.binary(max_size=10), st.just(0)),
)


@pytest.fixture
def backend(valkey_url: str) -> Iterator[RedisBackend]:
    backend = create(Settings(redis_url=valkey_url), create_engine("sqlite://"))
    yield backend
    backend.close()


@BOUNDED
@given(garbage=st.lists(deeds, max_size=12), first=st.booleans())
def test_garbage_in_a_queue_loses_no_task(backend: RedisBackend, garbage: list[Any], first: bool) -> None:
    """Every task of the record is claimed, with the reconciler's question for what the index lacks."""
    queue, tasks = f"garbage-{uuid4().hex}", [new_agent_id() for _ in range(TASKS)]
    entries = [Entry(task, Priority(number % 2)) for number, task in enumerate(tasks)]
    keys = backend._keys(queue)

    def pour() -> None:
        for deed, name, member, value in garbage:
            key = getattr(keys, name)
            member = tasks[member].hex.encode() if isinstance(member, int) else member
            if deed == "add":
                backend._single_try_client.zadd(key, {member: value})
            elif deed == "mark":
                backend._single_try_client.hset(key, member, value)
            else:
                backend._single_try_client.rpush(key, member)

    if first:
        pour()
    backend.push(queue, entries)
    if not first:
        pour()
    claimed: set[UUID] = set()
    for _ in range(3):
        backend.push(
            queue, [entry for entry in entries if entry.agent_id in backend.unknown_tasks(queue, tasks)]
        )
        while found := backend.claim(
            queue, "worker", limit=100, low_quota=1, lease_seconds=LONG_LEASE
        ).leases:
            claimed.update(ids(found))
    assert claimed >= set(tasks)
    # And everything else works on what is left.
    backend.expired_leases(queue, 100)
    leases = backend.worker_leases(queue, "worker")
    backend.renew(queue, "worker", leases, LONG_LEASE)
    backend.make_ready(queue, tasks)
    backend.release(queue, leases[0], delay=5)
    backend.finish(queue, leases)
    backend.remove(queue, tasks)
    backend.depth(queue)
    assert backend.unknown_tasks(queue, tasks) == tasks


def test_garbage_beside_a_queue(backend: RedisBackend) -> None:
    """Mailboxes, watches, followers, streams, leaderships and buckets."""
    raw, queue, task = backend._single_try_client, "queue", new_agent_id()
    raw.rpush(backend._mail_key("box"), b"\xff\xfe", b"done x", b"")
    assert len(backend.receive("box", 0.0)) == 3
    raw.sadd(backend._watch_key(queue, task), b"\xff", b"box")
    raw.zadd(backend._follow_key(queue, task), {b"\xff": 1e12, b"box": 1e12})
    backend.notify_done(queue, [task])
    assert backend.receive("box", 0.0) == [f"done {task}"]
    raw.xadd(backend._events_key(queue, task), {b"other": b"\xff"}, id=f"{2**64 - 1}-{2**64 - 1}")
    other, spoiled = new_agent_id(), new_agent_id()
    raw.set(backend._events_key(queue, spoiled), "no stream")
    assert backend.read_events(queue, {task: 0, spoiled: 0})[task][0].text == ""
    backend.publish(queue, {spoiled: ["kept"], task: ["one"], other: ["two"]})
    found = backend.read_events(queue, {spoiled: 0, task: 0, other: 0})
    assert {agent_id: [event.text for event in events] for agent_id, events in found.items()} == {
        spoiled: ["kept"],
        task: ["one"],
        other: ["two"],
    }
    raw.set(backend._leader_key("role"), "a stranger, for ever")
    assert backend.acquire_leadership("role", "me", LONG_LEASE)
    limits: RateLimits = parse_rate_limits("m=60rpm")
    raw.set(backend._bucket_keys(limits.demands("m", 0))[0], "no number")
    assert backend.reserve(limits.demands("m", 0), 1.0) == 0.0


# ---- rows --------------------------------------------------------------------------------------------------


def spoil(task: ax.Task, **columns: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(columns))


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres", alternates=False)
def test_bad_contexts_end_their_tasks_and_no_other(deploy: Deploy) -> None:
    deployment = deploy(lease_seconds=5)
    bad = [ax.enqueue_sync(name, {"key": "x"}) for name in ("work", "untyped", "work", "untyped", "work")]
    for task, context in zip(
        bad, ["no json", "[1]", '{"key": 1}', GARBAGE, '{"key": "\\ud800"}'], strict=True
    ):
        spoil(task, context=context)
    # The database keeps statuses right; where it was made to hold another, the row cannot even be read.
    unreadable = ax.enqueue_sync("work", {"key": "unreadable"})
    with RUNTIME.engine.begin() as connection:
        row = text(f"UPDATE {Activity.__tablename__} SET status = 'nonsense' WHERE agent_id = :id")
        connection.execute(row.bindparams(bindparam("id", unreadable.agent_id, Uuid())))
    forged = [UUID(int=n) for n in (1, 2)]
    RUNTIME.backend.push(ax.CONF.queue_name, [Entry(agent_id, Priority.HIGH) for agent_id in forged])
    good = [deployment.enqueue("work", f"good-{number}") for number in range(5)]
    deployment.start()
    deployment.wait_for_ends([*bad, *good], timeout=30)
    assert deployment.endings(good) == [["complete"]] * 5
    assert deployment.endings(bad) == [["error"]] * 5
    for task in bad:
        assert "is not valid" in (deployment.detail(task).error or "")
    deployment.wait_for(lambda: deployment.depth() == 0)
    assert deployment.log.count(f"Cannot start task {unreadable.agent_id}") == 1
    assert "Traceback" not in deployment.log


@pytest.fixture(params=DATABASES)
def record(request: pytest.FixtureRequest) -> Iterator[None]:
    """This process as a web app on an empty database."""
    ax.configure(database_url=request.getfixturevalue(f"{request.param}_tables"))
    yield
    RUNTIME.close()


@pytest.mark.usefixtures("record")
def test_bad_rows_do_not_hide_the_others() -> None:
    good, bad = (ax.activity.create(name, metadata={"tenant": "a"}) for name in ("good", "bad"))
    waiting = ax.activity.create("waits")
    for agent_id in (good, bad):
        ax.activity.complete(agent_id)
    with RUNTIME.engine.begin() as connection:
        row = update(Activity).where(Activity.agent_id == bad)
        usage: Any = {"gpt": {"requests": "many", "input_tokens": 3}, "other": [1]}
        connection.execute(row.values(error="\\ud800 \x1b[2J", usage=usage, requests=1))
        connection.execute(
            text(f"UPDATE {Activity.__tablename__} SET metadata = '[1]' WHERE agent_type = 'bad'")
        )
        if connection.dialect.name == "sqlite":
            connection.execute(
                text(f"UPDATE {Activity.__tablename__} SET metadata = 'no json' WHERE agent_type = 'bad'")
            )
        connection.execute(insert(ActivityResult).values(agent_id=bad, value=GARBAGE, expires_at=utc_now()))
        connection.execute(insert(Meta).values(name="activity_counts", value="no json"))
        for kind, path in (("approval", "p"), ("nonsense", "q")):
            values = {"path": path, "seq": 0, "call_id": path, "kind": kind, "tool": "t"}
            values |= {
                "agent_id": waiting,
                "arguments": GARBAGE,
                "status": "pending",
                "created_at": utc_now(),
            }
            connection.execute(insert(Approval).values(**values))
    with Session(RUNTIME.engine) as db:
        assert {item.agent_type for item in ax.activity.list(db).items} == {"good", "bad", "waits"}
        assert ax.activity.detail(db, bad).usage_by_model["gpt"].input_tokens == 3
        assert spent(db).usage.input_tokens == 3
        assert ax.activity.overview(db).queued == 1
        assert [approval.call_id for approval in ax.approvals.list(db)] == ["p"]
    with pytest.raises(AgentexecError, match="cannot be read: the database does not hold JSON"):
        ax.get_result_sync(bad, patient(5))
    *_, last = ax.activity.stream(bad)
    assert (last.type, last.data["value"]) == ("result", None)


@pytest.mark.usefixtures("record")
def test_a_bad_journal_or_tracker_is_an_error_that_says_so() -> None:
    task = ax.activity.create("t")
    with RUNTIME.engine.begin() as connection:
        row = {"agent_id": task, "path": "p", "seq": 0, "kind": "what", "input_hash": "", "value": GARBAGE}
        connection.execute(insert(JournalEntry).values(**row, epoch=1, created_at=utc_now()))
        row = {"key": "garbage", "count": 1, "counted": True, "updated_at": utc_now()}
        connection.execute(insert(TrackerCount).values(**row, task='{"queue": 1}'))
    with pytest.raises(AgentexecError, match="holds a row of an unknown kind"):
        store.load_facts(RUNTIME.engine, task)
    with pytest.raises(AgentexecError, match="task of a tracker cannot be read"):
        ax.Tracker("garbage").decr()


@pytest.mark.usefixtures("record")
@settings(BOUNDED, max_examples=25)
@given(
    wanted=st.dictionaries(st.text(max_size=9), st.text(max_size=9) | st.floats() | st.integers(), max_size=2)
)
def test_filters_from_clients_find_nothing_or_are_refused(wanted: dict[str, Any]) -> None:
    name = next(iter(wanted), "\x00")
    with Session(RUNTIME.engine) as db:
        for filters in (
            {"metadata_filter": {**wanted, "a": "b"}},
            {"text": name},
            {"agent_type": name or "x"},
        ):
            try:
                assert ax.activity.list(db, **filters).items == []
            except ax.UsageError:
                continue


@on_targets("embedded")
def test_contexts_of_the_command_line(deploy: Deploy) -> None:
    deployment = deploy(max_payload_bytes=2048)
    ax.CONF.max_payload_bytes, before = 2048, ax.CONF.max_payload_bytes
    try:
        files = {"deep": GARBAGE.encode(), "bytes": b"\xff\xfe", "long": b" " * 10_000, "nan": b'{"a": NaN}'}
        for name, content in files.items():
            (deployment.folder / name).write_bytes(content)
        for context, said in {
            "@deep": "nested too deeply|not valid JSON",  # by the Python: some read deeper than others
            "@bytes": "is not UTF-8 text",
            "@long": "larger than AGENTEXEC_MAX_PAYLOAD_BYTES=2048",
            "@/dev/zero": "larger than AGENTEXEC_MAX_PAYLOAD_BYTES=2048",
            "@nan": "JSON has no NaN",
            "@" + "x" * 5000: "Cannot read",
            "{": "not valid JSON",
        }.items():
            code, _, complaint = run_in_process(deployment, "enqueue", "work", context)
            assert (code, complaint.count("\n")) == (2, 1), complaint
            assert re.search(said, complaint), complaint
    finally:
        ax.CONF.max_payload_bytes = before

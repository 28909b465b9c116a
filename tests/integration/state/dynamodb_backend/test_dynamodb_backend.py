"""The DynamoDB backend beyond the suite: many processes, snapshots, lost replies, an emptied table, a server that is away."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session

from agentexec.config import Settings
from agentexec.errors import UnavailableError, UsageError
from agentexec.llm.rate_limits import Demand
from agentexec.state import dynamodb_backend
from agentexec.state.backend import Depth
from agentexec.state.dynamodb_backend import DynamoBackend, log, replica
from agentexec.state.dynamodb_backend.log import LAST
from agentexec.state.dynamodb_backend.table import Table, key
from agentexec.task import Entry, Lease, new_agent_id
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim, claim_all, ids, push
from tests.deployment import REPOSITORY
from tests.servers import DynamoDB

pytestmark = pytest.mark.thorough

WRONG_CLOCK = REPOSITORY / "tests" / "faults" / "wrong_clock"


@pytest.fixture
def table(dynamodb: DynamoDB) -> Table:
    dynamodb_backend.create_storage(Settings())
    return Table(Settings().dynamodb_table)


@pytest.fixture
def queue() -> str:
    return f"queue-{uuid4().hex}"


def new_backend(table: Table) -> DynamoBackend:
    """Return a backend as a further process has it, on the client of this one."""
    backend = DynamoBackend(table.name)
    backend._table._own = table._mine()
    return backend


def numbers_of(table: Table, backend: DynamoBackend, queue: str) -> list[int]:
    """Return the numbers of the entries that are left of a queue's log."""
    state = backend._replica(queue)._state
    segments = range(state.number // log.SEGMENT + 1)
    prefix = backend._replica(queue)._log._log_pk + state.head.generation
    items = [item for segment in segments for item in table.query(f"{prefix}#{segment}", "0", LAST)]
    return [int(item["sk"]["S"]) for item in items if "data" in item]


def test_processes_that_append_at_once_agree_who_has_which_task(table: Table, queue: str) -> None:
    backends = [new_backend(table) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        pushed = [
            task for tasks in threads.map(lambda each: push(each, queue, 10), backends) for task in tasks
        ]

        def work(backend: DynamoBackend) -> list[UUID]:
            mine: list[UUID] = []
            while leases := claim(backend, queue, 3):
                mine += ids(leases)
                backend.finish(queue, leases)
            return mine

        claimed = [task for tasks in threads.map(work, backends) for task in tasks]
    assert sorted(claimed) == sorted(pushed)
    assert [backend.depth(queue) for backend in backends] == [Depth(0, 0, 0)] * 4


def test_a_snapshot_replaces_the_log_before_it(
    table: Table, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "MAX_LOG_ENTRIES", 10)
    monkeypatch.setattr(log, "SEGMENT", 7)
    writer, late = new_backend(table), new_backend(table)
    first = push(writer, queue, 1)
    assert late.depth(queue).ready == 1
    pushed = [*first, *(task for _ in range(45) for task in push(writer, queue, 1))]
    head = writer._replica(queue)._state.head
    assert head.number == 40
    assert numbers_of(table, writer, queue) == list(range(30, 47))
    snapshots = {
        item["sk"]["S"].split("#")[1]
        for item in table.query(writer._replica(queue)._log._pk, "snap#", "snap#~")
    }
    assert snapshots == {f"{40:016}"}
    # One that was suspended while the log was shortened must not append a number again; another one has just started.
    assert ids(claim(late, queue, 20)) == pushed[:20]
    assert ids(claim_all(new_backend(table), queue)) == pushed[20:]
    assert claim(writer, queue) == []


def test_a_command_whose_reply_is_lost_runs_once(
    table: Table, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = new_backend(table)
    pushed = push(backend, queue, 2)
    put = Table.put_new

    def put_twice(table: Table, item: dict[str, Any]) -> bool:
        """Put as AWS's client does if the connection breaks before the reply: the second try finds the first."""
        assert put(table, item)
        return put(table, item)

    monkeypatch.setattr(Table, "put_new", put_twice)
    assert claim(backend, queue) == [Lease(pushed[0], 1)]
    assert new_backend(table).depth(queue) == Depth(1, 0, 1)


def test_what_was_appended_to_a_log_that_is_gone_is_not_read(table: Table, queue: str) -> None:
    stale, other = new_backend(table), new_backend(table)
    push(stale, queue, 1)
    for item in [*table.query(stale._replica(queue)._log._pk, "0", LAST)]:
        table.delete_all([{name: item[name] for name in ("pk", "sk")}])
    kept = push(other, queue, 1)
    push(stale, queue, 1)  # it has not looked yet
    stale._replica(queue)._state.checked_at = float("-inf")
    assert not stale.is_intact(queue)
    assert ids(claim(stale, queue, 5)) == kept
    assert other.depth(queue) == Depth(0, 0, 1)


def test_entries_that_nobody_of_ours_wrote_change_nothing(table: Table, queue: str) -> None:
    backend, other = new_backend(table), new_backend(table)
    pushed = push(backend, queue, 1)
    state = backend._replica(queue)._state
    for number, data in enumerate([b"?", b'[["claim"]]', b"[1]", b""], state.number + 1):
        entry = backend._replica(queue)._entry("forged", [])
        forged = {**entry, **backend._replica(queue)._log.entry_key(state.head, number), "data": {"B": data}}
        assert table.put_new(forged)
    assert other.depth(queue) == Depth(1, 0, 0)
    assert ids(claim(backend, queue, 5)) == pushed


def test_a_table_that_cannot_be_used_is_said_at_the_start(
    dynamodb: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no table missing in this region: run `agentexec migrate --state`"):
        DynamoBackend("missing").ping()
    client = Table("other").client
    client.create_table(
        TableName="other-keys",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(UsageError, match="has the keys id, and not pk and sk"):
        DynamoBackend("other-keys").ping()
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(UsageError, match=r"specify a region; correct AWS.s settings \(AWS_REGION"):
        DynamoBackend("agentexec").ping()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AWS_ENDPOINT_URL_DYNAMODB": "notaurl"}, "Invalid endpoint: notaurl; correct AWS's settings"),
        ({"AWS_ENDPOINT_URL_DYNAMODB": "http://localhost:port"}, "Port could not be cast.*; correct AWS's"),
        ({"AWS_ENDPOINT_URL_DYNAMODB": "redis://localhost"}, "is not the URL of an HTTP server; correct"),
        ({"AWS_ENDPOINT_URL_DYNAMODB": "https://{place}"}, "over TLS: .*; correct AWS_ENDPOINT_URL_DYNAMODB"),
        (
            {"AWS_ENDPOINT_URL_DYNAMODB": "http://{place}/path"},
            r"not answer like DynamoDB \(HTTP status 404\)",
        ),
        ({"AWS_REGION": "eu west"}, "'eu west' doesn't match a supported format; correct"),
        ({"AWS_PROFILE": "missing"}, "profile .missing. could not be found; correct"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "Partial credentials found.*; correct"),
    ],
)
def test_settings_of_aws_that_cannot_work_are_not_waited_for(
    variables: dict[str, str], expected: str, dynamodb: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(place=dynamodb.url.removeprefix("http://")))
    monkeypatch.setattr("agentexec.state.dynamodb_backend.table.TRIES", 1)
    with pytest.raises(UsageError, match=expected):
        DynamoBackend("agentexec").ping()


def test_a_missing_library_is_named_with_its_extra() -> None:
    program = "import sys; sys.modules['boto3'] = None; import agentexec.state.dynamodb_backend"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "install it with pip install 'agentexec[dynamodb]'" in done.stderr


def test_a_server_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch, dynamodb: DynamoDB) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
    monkeypatch.setattr("agentexec.state.dynamodb_backend.table.TRIES", 1)
    with pytest.raises(UnavailableError, match="DynamoDB cannot be reached"):
        DynamoBackend("agentexec").push("queue", [Entry(new_agent_id())])


def test_throttling_is_tried_again_and_then_unavailable(
    table: Table, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.state.dynamodb_backend.table.TRIES", 3)
    backend = DynamoBackend(table.name)
    answers = itertools.chain([400, 400])

    def throttle(**_: Any) -> Any:
        class Body:
            def stream(self) -> list[bytes]:
                return [b'{"__type": "com.amazonaws.dynamodb#ThrottlingException", "message": "slow down"}']

        status = next(answers, None)
        return status and AWSResponse("http://x", status, {}, Body())

    backend._table.client.meta.events.register("before-send.dynamodb", throttle)
    push(backend, queue, 1)
    assert backend.depth(queue).ready == 1
    answers = itertools.repeat(400)
    with pytest.raises(UnavailableError, match="slow down"):
        backend.depth(queue)


def lose_reply(backend: DynamoBackend, operation: str) -> None:
    """Have the connection break before the reply to the next request of a kind, which takes effect."""
    events = backend._table.client.meta.events
    requests = itertools.count()

    def break_off(request: Any, **_: Any) -> None:
        if next(requests) == 0:
            URLLib3Session().send(request)
            raise ConnectionClosedError(endpoint_url=request.url)

    events.register(f"before-send.dynamodb.{operation}", break_off)


def test_watchers_are_told_although_a_reply_is_lost(table: Table, queue: str) -> None:
    backend, task = DynamoBackend(table.name), new_agent_id()
    backend.watch(queue, [task], queue)
    lose_reply(backend, "DeleteItem")
    backend.notify_done(queue, [task])
    assert backend.receive(queue, 1.0) == [f"done {task}"]


def test_a_bucket_that_a_transaction_changes_is_tried_again(
    table: Table, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DynamoBackend(table.name)
    answers = iter([400])

    def refuse(**_: Any) -> Any:
        class Body:
            def stream(self) -> list[bytes]:
                return [
                    b'{"__type": "com.amazonaws.dynamodb#TransactionConflictException", "message": "busy"}'
                ]

        status = next(answers, None)
        return status and AWSResponse("http://x", status, {}, Body())

    backend._table.client.meta.events.register("before-send.dynamodb.PutItem", refuse)
    demand = Demand(queue, amount=1, capacity=10, per_second=1.0)
    assert backend.reserve([demand], 0.0) == 0.0
    assert not next(answers, None)


def test_migrate_makes_the_table(dynamodb: DynamoDB, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AGENTEXEC_STATE_BACKEND": "agentexec.state.dynamodb_backend",
        "AGENTEXEC_DYNAMODB_TABLE": "migrated",
    }

    def migrate(*more: str) -> tuple[int, str]:
        arguments = [sys.executable, "-m", "agentexec", "migrate", "--state", *more]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert migrate() == (0, "The DynamoDB table migrated is created.\n")
    assert migrate() == (0, "The DynamoDB table migrated is there.\n")
    assert migrate("--sql")[0] == 2
    table = Table("migrated")
    table.check()
    assert table.client.describe_time_to_live(TableName="migrated")["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "ttl",
    }


def test_old_messages_and_watches_have_an_expiry(table: Table) -> None:
    backend, name = new_backend(table), uuid4().hex
    backend.send(name, ["hello"])
    [item] = table.query(f"mail#{name}", "0", LAST)
    assert int(item["ttl"]["N"]) > 0
    backend.watch("queue", [task := new_agent_id()], name)
    [watch] = table.read_all([key(f"watch#queue#{task.hex}", "-")])
    assert {*watch} == {"pk", "sk", "ttl", f"@{name}"}


def test_a_host_with_a_wrong_clock_goes_by_the_time_of_dynamodb(table: Table, queue: str) -> None:
    push(new_backend(table), queue, 1)
    program = (
        "import sys; from agentexec.state.dynamodb_backend import DynamoBackend; "
        f"backend, queue = DynamoBackend({table.name!r}), sys.argv[1]; "
        "backend.claim(queue, 'w', limit=1, low_quota=0, lease_seconds=60); print(backend.expired_leases(queue, 5))"
    )
    wrong = {"PYTHONPATH": f"{WRONG_CLOCK}{os.pathsep}{REPOSITORY}", "CLOCK_AHEAD": "250"}
    done = subprocess.run(
        [sys.executable, "-c", program, queue], env={**os.environ, **wrong}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    with new_backend(table)._replica(queue).reading() as state:
        [ends] = state.leases.values()
    assert abs(ends - time.time() - 60) < 20


def test_expired_tasks_are_seen_by_other_processes(table: Table, queue: str) -> None:
    backend, other = new_backend(table), new_backend(table)
    push(backend, queue, 1)
    [lease] = claim(backend, queue, seconds=-1.0)
    assert other.expired_leases(queue, 5) == [lease]
    assert other.release(queue, lease)
    assert backend.renew(queue, "worker", [lease], LONG_LEASE).taken == []
    assert claim(other, queue) == []

"""With AGENTEXEC_SIGNING_KEY only signed data in Redis is accepted, and turning it on loses nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine

import agentexec as ax
from agentexec.config import Settings
from agentexec.llm.rate_limits import parse_rate_limits
from agentexec.state.backend import Depth, Event
from agentexec.state.messages import CANCEL, format_message
from agentexec.state.redis_backend import RedisBackend, create
from agentexec.task import Entry, Lease, new_agent_id
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim, ids, push
from tests.deployment import Deploy, on_targets
from tests.servers import Valkey

Q = "queue"
OLD, NEW = "the key of last year", "the key of this year"

Backends = Callable[..., RedisBackend]


@pytest.fixture
def signed_by(valkey_url: str) -> Iterator[Backends]:
    """Return a function that creates a backend with keys: `signed_by(NEW, OLD)`. `signed_by()` signs nothing."""
    backends: list[RedisBackend] = []

    def make(*keys: str) -> RedisBackend:
        key = SecretStr(",".join(keys)) if keys else None
        backends.append(create(Settings(redis_url=valkey_url, signing_key=key), create_engine("sqlite://")))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


@pytest.mark.parametrize("forger", [[], [OLD]], ids=["unsigned", "another key"])
def test_forged_entries_are_removed_with_one_log_line(
    signed_by: Backends, forger: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    backend = signed_by(NEW)
    forged = push(signed_by(*forger), Q, 3)
    [real] = push(backend, Q, 1)
    with caplog.at_level(logging.WARNING, "agentexec.signing"):
        assert claim(backend, Q, 10) == [Lease(real, 1)]
        push(signed_by(*forger), Q, 3)
        assert claim(backend, Q, 10) == []
    assert backend.depth(Q) == Depth(0, 0, 1)
    assert backend.unknown_tasks(Q, forged) == forged, "the reconciler restores real tasks"
    [line] = caplog.messages
    assert line.startswith(f"Dropped entries of queue {Q} without a valid signature (3).")


def test_a_signature_is_valid_for_one_task_of_one_queue(signed_by: Backends) -> None:
    backend = signed_by(NEW)
    [real] = push(backend, Q, 1)
    other = new_agent_id()
    mark = backend._single_try_client.hget(backend._keys(Q).entry, real.hex)
    for queue, agent_id in ((Q, other), ("elsewhere", real)):
        backend._single_try_client.hset(backend._keys(queue).entry, agent_id.hex, mark)
        backend._single_try_client.zadd(backend._keys(queue).high, {agent_id.hex: 0})
    assert ids(claim(backend, Q, 10)) == [real]
    assert claim(backend, "elsewhere", 10) == []


def test_forged_leases_are_ignored(signed_by: Backends) -> None:
    unsigned, backend = signed_by(), signed_by(NEW)
    forged = push(unsigned, Q, 2)
    unsigned.claim(Q, "worker", limit=1, low_quota=0, lease_seconds=LONG_LEASE)
    unsigned.claim(Q, "other", limit=1, low_quota=0, lease_seconds=0.0)
    assert backend.expired_leases(Q, 10) == []
    assert backend.worker_leases(Q, "worker") == []
    assert backend.unknown_tasks(Q, forged) == forged


def test_keys_are_changed_while_tasks_run(signed_by: Backends) -> None:
    before, both, after = signed_by(OLD), signed_by(NEW, OLD), signed_by(NEW)
    done, returned, waiting = push(before, Q, 3)
    leases = claim(before, Q, 2)
    assert both.renew(Q, "worker", leases, LONG_LEASE) == ([], [])
    both.finish(Q, [leases[0]])
    assert both.release(Q, leases[1])
    assert ids(claim(both, Q, 10)) == [returned, waiting], "signatures by the old key are accepted"
    assert both.unknown_tasks(Q, [done]) == [done]
    both.push(Q, [Entry(done)])
    assert ids(claim(after, Q, 10)) == [done], "the first key signs"


def test_messages_without_a_signature_are_dropped(signed_by: Backends) -> None:
    backend, agent_id = signed_by(NEW, OLD), new_agent_id()
    for keys in ([], [NEW], [OLD], ["the key of a stranger"]):
        signed_by(*keys).send("box", [format_message(CANCEL, f"{agent_id} {keys}")])
    assert backend.receive("box", 0.0) == [
        format_message(CANCEL, f"{agent_id} {[key]}") for key in (NEW, OLD)
    ]
    signed_by(NEW).send("other", ["done"])
    raw = backend._single_try_client.lpop(backend._mail_key("other"))
    backend._single_try_client.rpush(backend._mail_key("box"), raw)
    assert backend.receive("box", 0.0) == [], "a message signed for another mailbox is dropped too"


def test_events_without_a_signature_have_no_text(signed_by: Backends) -> None:
    backend, agent_id = signed_by(NEW), new_agent_id()
    signed_by().publish(Q, {agent_id: ['{"type": "text_delta"}']})
    backend.publish(Q, {agent_id: ["real"]})
    forged, real = backend.read_events(Q, {agent_id: 0})[agent_id]
    assert forged == Event(real.number - 1, "")
    assert real.text == "real"


@pytest.mark.thorough
@on_targets("valkey+postgres", alternates=False)
def test_turning_the_key_on_loses_nothing(deploy: Deploy) -> None:
    deployment = deploy(signing_key=NEW)
    tasks = [deployment.enqueue("work", f"old-{number}") for number in range(20)]
    later = ax.enqueue_sync("work", {"key": "delayed"}, delay=1.0)
    assert deployment.depth() == 21, "without a signature: this process has no key"
    deployment.start()
    deployment.wait_for_ends([*tasks, later], timeout=30)
    assert deployment.endings([*tasks, later]) == [["complete"]] * 21
    assert set(deployment.ledger("start").values()) == {1}, "no task ran twice"
    assert 0 < deployment.log.count("without a valid signature") <= 2, deployment.log
    assert NEW not in deployment.log


@pytest.mark.thorough
@on_targets("valkey+postgres", alternates=False)
def test_a_forged_cancel_message_stops_no_task(deploy: Deploy) -> None:
    """A worker asks the record before it stops a task, also without a key."""
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("work", "victim", seconds=2.0)
    deployment.wait_for_start("victim")
    assert deployment.broker is not None
    with deployment.broker.client() as server:
        mark = server.hget("{agentexec:agentexec_tasks}:entry", task.agent_id.hex).decode()
        mailbox = f"agentexec:mail:{mark.partition(' ')[2]}"
        server.rpush(
            mailbox, b"cancel nonsense", b"\xff", format_message(CANCEL, task.agent_id), b"done nonsense"
        )
        deployment.wait_for(lambda: not server.exists(mailbox))
    assert deployment.wait_for_status(task, "complete", "error").attempt == 1
    assert deployment.endings([task]) == [["complete"]], deployment.log
    assert "Traceback" not in deployment.log


def test_a_redis_user_with_few_rights_is_enough(valkey: Valkey, signed_by: Backends) -> None:
    """The user of docs/security.md: the keys of agentexec, no dangerous commands, so no INFO either."""
    rules = ("on", ">pw", "~agentexec:*", "~{agentexec:*", "+@all", "-@dangerous", "-@admin")
    with valkey.client() as server:
        server.execute_command("ACL", "SETUSER", "tasks", *rules)
    backend = create(
        Settings(redis_url=valkey.url.replace("//", "//tasks:pw@"), signing_key=SecretStr(NEW)),
        create_engine("sqlite://"),
    )
    try:
        backend.ping()
        assert backend.acquire_leadership("role", "me", LONG_LEASE)
        backend.mark_intact(Q)
        assert backend.is_intact(Q)
        [task] = push(backend, Q, 1)
        backend.watch(Q, [task], "box")
        backend.follow(Q, [task], "box")
        assert ids(claim(backend, Q)) == [task]
        backend.publish(Q, {task: ["one"]})
        backend.finish(Q, [Lease(task, 1)])
        backend.notify_done(Q, [task])
        assert backend.receive("box", 1.0) == [f"events {task}", f"done {task}"]
        assert backend.reserve(parse_rate_limits("m=60rpm").demands("m", 0), 1.0) == 0.0
    finally:
        backend.close()
        with valkey.client() as server:
            server.execute_command("ACL", "DELUSER", "tasks")

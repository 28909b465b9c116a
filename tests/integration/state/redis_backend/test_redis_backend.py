"""Promises of the Redis backend beyond the suite: bounded calls, clear errors for an unusable server, no stray keys."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
import redis
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import UnavailableError, UsageError
from agentexec.llm.rate_limits import Demand
from agentexec.state.backend import Depth, LostLeases
from agentexec.state.redis_backend import RedisBackend, connection, create
from agentexec.task import Entry, Lease, Priority, new_agent_id
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim, ids, push
from tests.servers import HOST, Valkey, free_port
from tests.waiting import patient, wait_until

Q = "queue"


def make(url: str | None) -> RedisBackend:
    return create(Settings(redis_url=url), create_engine("sqlite://"))


@pytest.fixture
def backend(broker: Valkey) -> Iterator[RedisBackend]:
    backend = make(broker.url)
    yield backend
    backend.close()


class TestUrl:
    def test_a_read_timeout_in_the_url_does_not_cut_a_wait_short(self, broker: Valkey) -> None:
        backend = make(f"{broker.url}?socket_timeout=0.1&protocol=2")
        started = time.monotonic()
        backend.wait(Q, 0.5)
        assert backend.receive("mailbox", 0.5) == []
        assert time.monotonic() - started > 0.9


class TestOutage:
    def test_the_error_of_an_unreachable_server_hides_its_password(self) -> None:
        port = free_port()
        backend = make(f"redis://user:secret@{HOST}:{port}/3?client_name=secret")
        with pytest.raises(UnavailableError) as caught:
            backend.ping()
        assert str(caught.value) == f"Redis at redis://{HOST}:{port}/3 cannot be used: Connection refused."

    def test_a_frozen_server_does_not_block_a_call_for_long(
        self, broker: Valkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "TIMEOUT", 0.3)
        monkeypatch.setattr(connection, "MAX_BLOCK_SECONDS", 0.3)
        backend = make(broker.url)
        push(backend, Q, 1)
        broker.pause()
        started = time.monotonic()
        for call in calls(backend):
            with pytest.raises(UnavailableError, match="cannot be used"):
                call()
        assert time.monotonic() - started < len(calls(backend)) * patient(1.5)
        broker.resume()
        assert len(claim(backend, Q)) == 1

    @pytest.mark.parametrize("kind", ["accepts and is silent", "does not accept"])
    def test_a_black_hole_does_not_block_a_call_for_long(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "TIMEOUT", 0.2)
        monkeypatch.setattr(connection, "MAX_BLOCK_SECONDS", 0.2)
        with socket.create_server((HOST, 0), backlog=0) as listener, ExitStack() as stack:
            if kind == "does not accept":
                for _ in range(2):  # the kernel accepts one more than the backlog
                    filler = stack.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(listener.getsockname())
            place = f"{HOST}:{listener.getsockname()[1]}"
            urls = [f"redis://{place}", f"redis://{place},{place}", f"redis+sentinel://{place},{place}/main"]
            for url in urls:
                with pytest.raises(UnavailableError, match="cannot be used"):
                    make(url).ping()

    def test_a_restart_ends_waiting_and_the_next_call_works(
        self, broker: Valkey, backend: RedisBackend
    ) -> None:
        push(backend, Q, 1)
        claim(backend, Q, 2)
        with ThreadPoolExecutor(2) as threads:
            waiting = [
                threads.submit(backend.wait, Q, 60),
                threads.submit(backend.receive, "mailbox", 60),
            ]
            time.sleep(0.2)
            broker.restart()
            for wait in waiting:
                with pytest.raises(UnavailableError):
                    wait.result(10)
        pushed = push(backend, Q, 1)  # by a script that the server does not know since its restart
        assert ids(claim(backend, Q)) == pushed

    def test_closing_ends_waiting(self, backend: RedisBackend) -> None:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(backend.wait, Q, 60)
            time.sleep(0.2)
            backend.close()
            with pytest.raises(UnavailableError):
                waiting.result(5)

    def test_a_server_that_became_a_replica_is_unavailable(
        self, server: redis.Redis, backend: RedisBackend
    ) -> None:
        push(backend, Q, 1)
        server.execute_command("REPLICAOF", HOST, free_port())
        with pytest.raises(UnavailableError, match="cannot be used"):
            claim(backend, Q)
        server.execute_command("REPLICAOF", "NO", "ONE")
        assert len(claim(backend, Q)) == 1

    @pytest.mark.parametrize("persist", [True, False])
    def test_a_restart_is_detected(self, broker: Valkey, backend: RedisBackend, persist: bool) -> None:
        """The index is not intact even if the data came back: its last seconds may be missing."""
        backend.mark_intact(Q)
        broker.restart(persist=persist)
        assert not backend.is_intact(Q)
        backend.mark_intact(Q)
        assert backend.is_intact(Q)


class TestFullServer:
    @pytest.fixture
    def full(self, server: redis.Redis, backend: RedisBackend) -> RedisBackend:
        push(backend, Q, 5)
        backend.push(Q, [Entry(new_agent_id(), run_at=time.time() + 0.2)])
        claim(backend, Q, 3)
        server.config_set("maxmemory", 1)
        return backend

    def test_pushing_is_refused(self, full: RedisBackend) -> None:
        with pytest.raises(UnavailableError, match=r"is full: raise its maxmemory"):
            push(full, Q, 1)

    def test_workers_still_drain_a_full_server(self, full: RedisBackend) -> None:
        held = full.worker_leases(Q, "worker")
        assert full.renew(Q, "worker", held, LONG_LEASE) == LostLeases([], [])
        assert full.release(Q, held[0])
        assert full.release(Q, held[1], delay=0.01)
        full.finish(Q, held[2:])
        time.sleep(0.3)
        remaining = claim(full, Q, 10)
        assert len(remaining) == 5
        full.finish(Q, remaining)
        assert full.depth(Q) == Depth(0, 0, 0)


class TestPing:
    @pytest.mark.parametrize(
        ("policy", "accepted"),
        [("noeviction", True), ("volatile-lru", True), ("allkeys-lru", False), ("allkeys-random", False)],
    )
    def test_a_policy_that_evicts_tasks_is_refused(
        self, server: redis.Redis, backend: RedisBackend, policy: str, accepted: bool
    ) -> None:
        server.config_set("maxmemory-policy", policy)
        backend.ping()  # without a limit nothing is evicted
        server.config_set("maxmemory", "100mb")
        if accepted:
            backend.ping()
        else:
            with pytest.raises(
                UsageError, match=f"maxmemory-policy {policy}.*set maxmemory-policy to noeviction"
            ):
                backend.ping()

    def test_a_server_whose_user_may_not_call_info_is_accepted(
        self, server: redis.Redis, broker: Valkey
    ) -> None:
        server.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-info", "-config")
        backend = make(broker.url.replace("//", "//limited:pw@"))
        backend.ping()
        backend.mark_intact(Q)
        assert backend.is_intact(Q)
        assert len(push(backend, Q, 1)) == len(claim(backend, Q))


class TestEnds:
    @pytest.mark.parametrize("forged", [False, True])
    def test_an_end_is_acknowledged_and_told_together(
        self, server: redis.Redis, backend: RedisBackend, forged: bool
    ) -> None:
        push(backend, Q, 4)
        held = claim(backend, Q, 3)
        first, second, third = ids(held)
        backend.watch(Q, [first, third], "mailbox")
        backend.watch(Q, [third], "other")
        if forged:
            server.set(f"{{agentexec:{Q}}}:watch:{second.hex}", "not a set")
        backend.finish_and_notify(Q, held)
        assert backend.depth(Q) == Depth(1, 0, 0)
        assert backend.receive("mailbox", 0) == [f"done {first}", f"done {third}"]
        assert backend.receive("other", 0) == [f"done {third}"]
        backend.finish_and_notify(Q, held)
        assert backend.receive("mailbox", 0) == []


class TestOldSnapshot:
    """A server that lost its last seconds may know a lower epoch than a held lease, or have given out its epoch again."""

    def test_a_lease_above_the_known_epoch_is_taken_up(self, backend: RedisBackend) -> None:
        agent_id = new_agent_id()
        backend.push(Q, [Entry(agent_id)])
        lease = Lease(agent_id, 2)
        assert backend.renew(Q, "holder", [lease], LONG_LEASE) == LostLeases([], [])
        assert backend.worker_leases(Q, "holder") == [lease]
        assert claim(backend, Q) == []
        assert backend.release(Q, lease)
        assert claim(backend, Q) == [Lease(agent_id, 3)]

    def test_an_epoch_given_out_twice_has_one_holder(self, backend: RedisBackend) -> None:
        [agent_id] = push(backend, Q, 1)
        [lease] = claim(backend, Q, worker="second")
        assert backend.renew(Q, "first", [lease], LONG_LEASE) == LostLeases([agent_id], [])
        assert backend.renew(Q, "second", [lease], LONG_LEASE) == LostLeases([], [])


class TestBuckets:
    @pytest.mark.parametrize("forged", ["9" * 20, "inf", "nan", "-5", "words"])
    def test_an_impossible_state_counts_as_full(
        self, server: redis.Redis, backend: RedisBackend, forged: str
    ) -> None:
        demand = [Demand("gpt-4o:rpm", 1, 3, 1 / 3600)]
        backend.reserve(demand, 0)
        [key] = server.keys("*gpt-4o*")
        server.set(key, forged)
        assert [backend.reserve(demand, 0) for _ in range(3)] == [0, 0, 0]
        assert backend.reserve(demand, 0) > 0


class TestKeys:
    def test_a_queue_is_in_one_slot_and_leaves_nothing_behind(
        self, server: redis.Redis, backend: RedisBackend
    ) -> None:
        # All keys exist now: high, low, delayed, leases, entry, wake, intact, watch.
        push(backend, Q, 2, Priority.HIGH)
        push(backend, Q, 2)
        backend.push(Q, [Entry(new_agent_id(), run_at=time.time() + LONG_LEASE)])
        held = claim(backend, Q)
        backend.mark_intact(Q)
        backend.watch(Q, ids(held), "mailbox")
        keys = names(server)
        assert len(keys) == 8
        assert all(key.startswith(f"{{agentexec:{Q}}}:") for key in keys)
        backend.notify_done(Q, ids(held))
        backend.receive("mailbox", 1)
        entries = server.hkeys(f"{{agentexec:{Q}}}:entry")
        while leases := claim(backend, Q, 10):
            backend.finish(Q, leases)
        backend.finish(Q, held)
        assert len(entries) == 5
        [delayed] = server.hkeys(f"{{agentexec:{Q}}}:entry")
        assert server.zrange(f"{{agentexec:{Q}}}:delayed", 0, -1) == [delayed]
        server.delete(f"{{agentexec:{Q}}}:entry", f"{{agentexec:{Q}}}:delayed")
        assert names(server) == {f"{{agentexec:{Q}}}:intact"}

    def test_watches_and_unread_mailboxes_expire(self, server: redis.Redis, backend: RedisBackend) -> None:
        agent_id = new_agent_id()
        backend.watch(Q, [agent_id], "mailbox")
        assert 3500 < server.ttl(f"{{agentexec:{Q}}}:watch:{agent_id.hex}") <= 3600
        backend.send("mailbox", ["first"])
        server.expire("agentexec:mail:mailbox", 10)
        backend.send("mailbox", ["second"])
        assert server.ttl("agentexec:mail:mailbox") <= 10, (
            "further messages must not extend the life of a mailbox"
        )

    def test_wake_tokens_do_not_accumulate(self, server: redis.Redis, backend: RedisBackend) -> None:
        push(backend, Q, 1000)
        backend.wake(Q, 1000)
        wake = f"{{agentexec:{Q}}}:wake"
        assert server.llen(wake) == 64
        claim(backend, Q, 1000)
        claim(backend, Q)
        assert server.exists(wake) == 0, "no task is left for which to wake a worker"

    def test_a_worker_without_free_slots_wakes_another_for_the_remaining_tasks(
        self, server: redis.Redis, backend: RedisBackend
    ) -> None:
        push(backend, Q, 2)
        wake = f"{{agentexec:{Q}}}:wake"
        server.delete(wake)
        claim(backend, Q, 1)
        assert server.llen(wake) == 1
        claim(backend, Q, 2)
        assert server.llen(wake) == 0
        backend.push(Q, [Entry(new_agent_id()), Entry(new_agent_id(), run_at=time.time() + LONG_LEASE)])
        server.delete(wake)
        claim(backend, Q, 1)
        assert server.llen(wake) == 1, "an idle worker must wait for the delayed task"


def names(server: redis.Redis) -> set[str]:
    """Return the keys of a server."""
    keys: list[bytes] = server.execute_command("KEYS", "*")
    return {key.decode() for key in keys}


def calls(backend: RedisBackend) -> list[Callable[[], object]]:
    """Return one call of each kind of connection and reply."""
    agent_id = new_agent_id()
    return [
        backend.ping,
        lambda: backend.push(Q, [Entry(agent_id)]),
        lambda: claim(backend, Q),
        lambda: backend.wait(Q, 0.2),
        lambda: backend.receive("mailbox", 0.2),
        lambda: backend.watch(Q, [agent_id], "mailbox"),
        lambda: backend.is_intact(Q),
        lambda: backend.acquire_leadership("role", "owner", 1.0),
    ]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_delay_is_as_long_as_the_record_says_whatever_the_clock_of_redis_says(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    record = time.time() + hours * 3600
    monkeypatch.setattr(
        "agentexec.state.redis_backend.scripts.utc_now", lambda: datetime.fromtimestamp(record, UTC)
    )
    ready, soon, later = (new_agent_id() for _ in range(3))
    entries = [
        Entry(ready, run_at=record - 60),
        Entry(soon, run_at=record + 0.3),
        Entry(later, run_at=record + 300),
    ]
    backend.push(Q, entries)
    assert backend.compare(Q, entries, 30.0).wrong == []
    result = backend.claim(Q, "worker", limit=9, low_quota=0, lease_seconds=30.0)
    assert ids(result.leases) == [ready]
    assert result.next_due is not None
    assert 0 < result.next_due <= 0.3
    wait_until(lambda: backend.depth(Q) == Depth(ready=1, delayed=1, leased=1))

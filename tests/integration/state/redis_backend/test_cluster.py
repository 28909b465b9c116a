"""A Redis Cluster: queues and mailboxes are on several shards, and slots move while clients use them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import UnavailableError, UsageError
from agentexec.state.backend import Depth
from agentexec.state.redis_backend import RedisBackend, create
from agentexec.task import new_agent_id
from agentexec.testing.backend_suite.operations import claim, ids, push
from tests.redis_clusters import Cluster, ClusterNode
from tests.servers import HOST
from tests.waiting import wait_until

QUEUES = [f"queue{number}" for number in range(12)]
MAILBOXES = [f"mailbox{number}" for number in range(12)]


def make(url: str) -> RedisBackend:
    return create(Settings(redis_url=url), create_engine("sqlite://"))


def queue_key(queue: str) -> str:
    return f"{{agentexec:{queue}}}:wake"


def mail_key(mailbox: str) -> str:
    return f"agentexec:mail:{mailbox}"


@pytest.fixture
def backend(cluster: Cluster) -> Iterator[RedisBackend]:
    backend = make(cluster.url)
    yield backend
    backend.close()


@pytest.fixture
def queues(cluster: Cluster) -> list[str]:
    """Three queues, each on another shard."""
    by_port = {cluster.owner(queue_key(queue)).port: queue for queue in QUEUES}
    assert len(by_port) == 3
    return list(by_port.values())


class TestShards:
    def test_every_node_and_every_list_of_nodes_leads_to_all_shards(
        self, cluster: Cluster, queues: list[str]
    ) -> None:
        pushed = {queue: push(make(cluster.url), queue, 2) for queue in queues}
        lists = [f"redis://127.0.0.1:1,{cluster.nodes[-1].name}", cluster.list_url]
        for url in [*(node.url for node in cluster.nodes), *lists]:
            backend = make(url)
            backend.ping()
            assert {queue: backend.depth(queue) for queue in queues} == dict.fromkeys(
                pushed, Depth(2, 0, 0)
            ), url
            assert backend.describe().startswith("cluster of 3 shards")
            backend.close()

    def test_a_wait_on_queues_of_several_shards_ends_with_a_task_on_any(
        self, backend: RedisBackend, queues: list[str]
    ) -> None:
        for queue in queues:
            with ThreadPoolExecutor(1) as threads:
                waiting = threads.submit(backend.wait, queues, 10)
                push(backend, queue, 1)
                waiting.result(5)
            assert len(claim(backend, queue)) == 1
        backend.wait(queues, 0.05)
        assert [backend.depth(queue).ready for queue in queues] == [0, 0, 0]

    def test_closing_ends_a_wait_on_several_shards(
        self, cluster: Cluster, backend: RedisBackend, queues: list[str]
    ) -> None:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(backend.wait, queues, 10)
            for primary in cluster.primaries():
                wait_until(lambda primary=primary: primary.ask("INFO", "clients")["blocked_clients"])
            backend.close()
            with pytest.raises(UnavailableError):
                waiting.result(5)

    def test_mail_to_mailboxes_of_all_shards_arrives_once(
        self, cluster: Cluster, backend: RedisBackend
    ) -> None:
        assert len({cluster.owner(mail_key(mailbox)).port for mailbox in MAILBOXES}) == 3
        agent_id = new_agent_id()
        for mailbox in MAILBOXES:
            backend.watch("queue", [agent_id], mailbox)
        backend.notify_done("queue", [agent_id])
        expected = [f"done {agent_id}"]
        assert [backend.receive(mailbox, 0) for mailbox in MAILBOXES] == [expected] * len(MAILBOXES)
        assert [backend.receive(mailbox, 0) for mailbox in MAILBOXES] == [[]] * len(MAILBOXES)

    def test_foreign_values_on_several_shards_are_removed(
        self, cluster: Cluster, backend: RedisBackend
    ) -> None:
        for mailbox in MAILBOXES:
            cluster.owner(mail_key(mailbox)).ask("SET", mail_key(mailbox), "forged")
        backend._send_all({mailbox: ["text"] for mailbox in MAILBOXES})
        assert [backend.receive(mailbox, 0) for mailbox in MAILBOXES] == [["text"]] * len(MAILBOXES)

    def test_a_shard_that_evicts_tasks_is_refused(self, cluster: Cluster, backend: RedisBackend) -> None:
        last = cluster.primaries()[-1]
        try:
            last.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
            with pytest.raises(
                UsageError, match=rf"^Redis at {last.name} \(of .*set maxmemory-policy to noeviction"
            ):
                backend.ping()
        finally:
            last.ask("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")

    def test_a_shard_that_denies_a_command_is_named(self, cluster: Cluster, backend: RedisBackend) -> None:
        owner = cluster.owner("{agentexec:default}:preflight")
        owner.ask("ACL", "SETUSER", "default", "-zadd")
        try:
            with pytest.raises(UsageError, match=rf"user of Redis at {owner.name} \(of .*: add \+zadd"):
                backend.ping()
        finally:
            owner.ask("ACL", "SETUSER", "default", "+@all")


@pytest.fixture(scope="module")
def moving() -> Iterator[Cluster]:
    """A cluster with a node that has no slots, so that no client knows it, as when a shard is added."""
    with Cluster(replicas=0, spares=1) as cluster:
        yield cluster


class TestMovingSlots:
    @pytest.fixture
    def fresh(self, moving: Cluster) -> ClusterNode:
        return moving.spares[0]

    @pytest.fixture
    def backend(self, moving: Cluster) -> Iterator[RedisBackend]:
        backend = make(moving.url)
        backend.ping()
        yield backend
        backend.close()

    def test_a_queue_is_followed_to_its_new_shard(
        self, moving: Cluster, fresh: ClusterNode, backend: RedisBackend
    ) -> None:
        pushed = push(backend, "queue", 3)
        first = claim(backend, "queue")
        backend.mark_intact("queue")
        source = moving.owner(queue_key("queue"))
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(backend.wait, "other", 0.2)  # of another queue: not disturbed
            moving.move(queue_key("queue"), fresh)
            waiting.result(5)
        assert moving.owner(queue_key("queue")) is fresh
        assert not backend.is_intact("queue"), (
            "another server has the index now, whose loss would not be noticed"
        )
        second = claim(backend, "queue", 5)
        assert ids(first) + ids(second) == pushed
        backend.finish("queue", [*first, *second])
        assert backend.depth("queue") == Depth(0, 0, 0)
        moving.move(queue_key("queue"), source)

    @pytest.mark.thorough
    def test_a_worker_that_waits_on_a_slot_that_moves_goes_on_waiting_on_the_new_shard(
        self, moving: Cluster, fresh: ClusterNode, backend: RedisBackend
    ) -> None:
        source = moving.owner(queue_key("queue"))
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(backend.wait, "queue", 10)
            wait_until(lambda: source.ask("INFO", "clients")["blocked_clients"])
            moving.move(queue_key("queue"), fresh)
            wait_until(lambda: fresh.ask("INFO", "clients")["blocked_clients"])
            push(backend, "queue", 1)
            waiting.result(5)
        backend.finish("queue", claim(backend, "queue"))
        moving.move(queue_key("queue"), source)

    def test_mail_is_taken_once_while_its_slot_moves(
        self, moving: Cluster, fresh: ClusterNode, backend: RedisBackend
    ) -> None:
        source = moving.owner(mail_key("mailbox"))
        backend.send("mailbox", ["before"])
        with moving.half_moved(mail_key("mailbox"), fresh):
            assert backend.receive("mailbox", 0.1) == ["before"]
            backend.send("mailbox", ["while"])
            assert backend.receive("mailbox", 0) == ["while"]
            assert backend.receive("mailbox", 0.1) == []
        backend.send("mailbox", ["after"])
        assert backend.receive("mailbox", 1) == ["after"]
        moving.move(mail_key("mailbox"), source)

    @pytest.mark.thorough
    def test_a_queue_whose_keys_are_on_two_shards_waits(
        self, moving: Cluster, fresh: ClusterNode, backend: RedisBackend
    ) -> None:
        """The scripts need all keys of a queue: until the last one has moved, calls fail as in an outage, and nothing runs."""
        pushed = push(backend, "queue", 1)
        source = moving.owner(queue_key("queue"))
        with moving.half_moved(queue_key("queue"), fresh):
            with pytest.raises(UnavailableError, match="cannot be used"):
                push(backend, "queue", 1)
            with pytest.raises(UnavailableError, match="cannot be used"):
                claim(backend, "queue")
        leases = claim(backend, "queue", 5)
        assert ids(leases) == pushed
        backend.finish("queue", leases)
        moving.move(queue_key("queue"), source)


@pytest.mark.thorough
def test_replicas_tell_who_takes_over_when_every_primary_dies() -> None:
    with Cluster() as cluster:
        primaries = cluster.primaries()
        replicas = [cluster.replica_of(primary) for primary in primaries]
        backend = make(primaries[0].url)
        pushed = push(backend, "queue", 1)
        other = make(f"redis://{','.join(primary.name for primary in primaries)}")
        other.depth("queue")
        owner = cluster.owner(queue_key("queue")).name
        for primary in primaries:
            primary.ask("WAIT", 1, 5000)
            primary.kill()
        with pytest.raises(UnavailableError, match=rf"^Redis at {owner} \(of .*\) cannot be used"):
            backend.depth("queue")
        for call in (other.ping, lambda: other.wait(QUEUES, 0.1)):
            with pytest.raises(UnavailableError, match=rf"^Redis at {HOST}:\d+ \(of .*: Connection refused"):
                call()
        for replica in replicas:
            # No primary is left that could vote.
            replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: all(replica.state == "ok" for replica in replicas))
        backend.depth("queue")
        assert ids(claim(backend, "queue")) == pushed
        backend.close()
        other.close()

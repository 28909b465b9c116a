"""A primary of Redis is killed, or the queue moves to another shard, under a deployment at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import agentexec as ax
from tests.deployment import Deployment
from tests.redis_clusters import Cluster, WatchedPair
from tests.servers import Valkey

pytestmark = pytest.mark.thorough

QUEUE = f"{{agentexec:{ax.CONF.queue_name}}}:entry"


@contextmanager
def deployed(folder: Path, database_url: str, redis_url: str, **settings: Any) -> Iterator[Deployment]:
    deployment = Deployment(folder, database_url, redis_url=redis_url, worker_concurrency=2, **settings)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


def work_through(deployment: Deployment, fault: Callable[[], None]) -> None:
    """Enqueue tasks before a fault, during it and after it; all of them run once."""
    tasks = {key: deployment.enqueue("work", key, seconds=1) for key in "abcdef"}
    deployment.wait_for_start("a", "b")
    fault()
    tasks |= {key: deployment.enqueue("work", key) for key in "ghi"}
    deployment.wait_for_ends(tasks.values(), timeout=40)
    tasks["last"] = deployment.enqueue("work", "last")
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * len(tasks)
    assert deployment.ledger("start") == dict.fromkeys(tasks, 1)
    deployment.wait_for(lambda: deployment.depth() == 0)


def test_the_primary_of_a_queue_in_a_cluster_is_killed(tmp_path: Path, sqlite_tables: str) -> None:
    with Cluster() as cluster, deployed(tmp_path, sqlite_tables, cluster.list_url) as deployment:
        primary = cluster.owner(QUEUE)
        work_through(deployment, primary.kill)
        assert cluster.owner(QUEUE) is not primary


def test_a_worker_of_two_queues_serves_one_while_the_shard_of_the_other_is_away(
    tmp_path: Path, sqlite_tables: str
) -> None:
    with Cluster(replicas=0) as cluster:
        primary = cluster.owner(QUEUE)
        other = next(
            f"other{number}"
            for number in range(100)
            if cluster.owner(f"{{agentexec:other{number}}}:entry") is not primary
        )
        queues = f"{ax.CONF.queue_name},{other}"
        with deployed(tmp_path, sqlite_tables, cluster.list_url, queues=queues) as deployment:
            primary.kill()
            lost = deployment.enqueue("work", "lost")
            for key in "abc":
                deployment.wait_for_ends([ax.enqueue_sync("work", {"key": key}, queue_name=other)])
            primary.start()
            deployment.wait_for_ends([lost])
            assert deployment.ledger("start") == dict.fromkeys(["lost", *"abc"], 1)
            assert deployment.log.count(f"Tasks of queue {ax.CONF.queue_name} are not claimed") == 1
            assert deployment.log.count(f"Claiming tasks of queue {ax.CONF.queue_name} again.") == 1


def test_a_queue_moves_between_shards_while_its_tasks_run(tmp_path: Path, sqlite_tables: str) -> None:
    with (
        Cluster(replicas=0, spares=1) as cluster,
        deployed(tmp_path, sqlite_tables, cluster.url) as deployment,
    ):

        def move() -> None:
            for target in (cluster.spares[0], *cluster.primaries(), cluster.spares[0]):
                if cluster.owner(QUEUE) is not target:
                    cluster.move(QUEUE, target)

        work_through(deployment, move)
        assert cluster.owner(QUEUE) is cluster.spares[0]


def test_sentinels_promote_the_replica_of_a_killed_primary(tmp_path: Path, sqlite_tables: str) -> None:
    with WatchedPair() as pair, deployed(tmp_path, sqlite_tables, pair.url) as deployment:
        work_through(deployment, pair.primary.kill)
        assert role(pair.replica) == b"master"


def role(server: Valkey) -> bytes:
    with server.client() as client:
        return client.execute_command("ROLE")[0]

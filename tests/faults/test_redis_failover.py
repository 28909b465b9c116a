"""A primary of Redis is killed, or the queue moves to another shard, under a deployment at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deployment import Deployment
from tests.redis_clusters import Cluster, WatchedPair
from tests.servers import Valkey

pytestmark = pytest.mark.thorough

QUEUE = "{agentexec:default}:entry"


@contextmanager
def deployed(folder: Path, database_url: str, redis_url: str) -> Iterator[Deployment]:
    deployment = Deployment(folder, database_url, redis_url=redis_url, worker_concurrency=2)
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

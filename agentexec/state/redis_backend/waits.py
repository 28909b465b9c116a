"""Wait for a worker's turn on the queues of a cluster: a blocking read for each, as their keys have different slots."""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import redis
from redis.exceptions import AskError

from agentexec.state.redis_backend.cluster import AWAY, ClusterClient
from agentexec.state.redis_backend.refusals import NODE, noted
from agentexec.state.redis_backend.topology import slot_of

GRACE_SECONDS = 1.0
"""Seconds by which a node may answer late that a read has found nothing."""

REDIRECTED_SECONDS = 0.1
"""Longest wait on a list that is on its way to another node, while the others are not watched."""


LOOK_SECONDS = 0.5
"""Seconds after which a thread that waits looks whether another one has closed its connections."""


def wait_for_any(cluster: ClusterClient, keys: Sequence[str], timeout: float) -> None:
    """Take an element from one of these lists, waiting for it up to `timeout` seconds.

    Connections whose reads still block then are closed, which ends the reads. An element that such a read takes is lost. It
    does no harm: the caller claims from all queues now, and a claim that leaves tasks wakes the next worker.
    """
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        blocked: set[Any] = set()
        for key in keys:
            node = cluster.topology.node_of(slot_of(key))
            try:
                pool = cluster.at(node).connection_pool
                connection: Any = pool.get_connection()
                stack.callback(pool.release, connection)
                # Before the release: what still waits for its answer must not be used again.
                stack.callback(lambda used=connection: used in blocked and used.disconnect())
                blocked.add(connection)
                connection.send_command("BLPOP", key, timeout)
            except AWAY as error:
                cluster.topology.note_failure(node)
                noted(error, NODE, *node)
                raise
            selector.register(connection._sock, selectors.EVENT_READ, (key, node, connection))
        deadline = time.monotonic() + timeout + GRACE_SECONDS
        while blocked and (remaining := deadline - time.monotonic()) > 0:
            if any(connection._sock is None for connection in blocked):
                raise redis.ConnectionError("Connection closed")
            for ready, _ in selector.select(min(remaining, LOOK_SECONDS)):
                key, node, connection = ready.data
                try:
                    answer = connection.read_response()
                except AskError:
                    cluster.blpop([key], timeout=min(timeout, REDIRECTED_SECONDS))
                    answer = True
                except AWAY as error:
                    cluster.topology.note_failure(node)
                    noted(error, NODE, *node)
                    raise
                blocked.discard(connection)
                selector.unregister(ready.fileobj)
                if answer is not None:
                    return

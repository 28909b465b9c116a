"""Map of a Redis Cluster: the node of each hash slot, as its nodes tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ClusterDownError

from agentexec.state.redis_backend.address import Node
from agentexec.state.redis_backend.refusals import NODE, noted


class Map(NamedTuple):
    """Nodes of a cluster."""

    slots: list[Node | None]
    """Primary of each hash slot."""

    nodes: list[Node]
    """All nodes: replicas may tell who takes over when every known primary is away."""


class Topology:
    """Map of a cluster, read again after a failure.

    Threads share it without locks, which a fork could leave locked: the map is replaced as a whole, and at worst it is read
    twice.

    Args:
        seeds: Nodes that are asked for the map, besides all of the last one.
        connect: Function that returns the client of a node by which it is asked.
    """

    def __init__(self, seeds: Sequence[Node], connect: Callable[[Node], redis.Redis]) -> None:
        self.seeds = tuple(seeds)
        self._connect = connect
        self._map = Map([], [])
        self._stale = True
        self._failed: Node | None = None

    def node_of(self, slot: int) -> Node:
        """Return the node that has a slot. Raises what redis-py raises if no node tells or none has it."""
        if self._stale or not self._map.nodes:
            self.read()
        node = self._map.slots[slot]
        if node is None:
            self._stale = True
            raise ClusterDownError(f"no node of the cluster has hash slot {slot}")
        return node

    def knows(self, node: Node) -> bool:
        """Return True for a node of the last map, or one that is always asked."""
        return node in self._map.nodes or node in self.seeds

    def primaries(self) -> list[Node]:
        """Return the nodes that have slots now."""
        self.read()
        return [node for node in dict.fromkeys(self._map.slots) if node]

    def note_move(self, slot: int, node: Node) -> None:
        """Note that another node has a slot now."""
        self._map.slots[slot] = node

    def note_failure(self, node: Node) -> None:
        """Read the map again before the next command, from another node if there is one."""
        self._failed, self._stale = node, True

    def read(self) -> None:
        """Ask nodes in random order, the one that failed last, until one tells who has which slots."""
        self._stale = False
        nodes = list(dict.fromkeys((*self.seeds, *self._map.nodes)))
        random.shuffle(nodes)
        nodes.sort(key=lambda node: node == self._failed)
        problem: Exception = ClusterDownError("no node of the cluster has a hash slot")
        for node in nodes:
            try:
                found = read_map(self._connect(node), node)
                if found.nodes:
                    self._map = found
                    return
            except (redis.RedisError, OSError) as error:
                problem = noted(error, NODE, *node)
        self._stale = True
        raise problem


def read_map(client: redis.Redis, asked: Node) -> Map:
    """Return the cluster as a node knows it; empty for a node that is in no cluster."""
    slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    nodes: dict[Node, None] = {}
    for first, last, *members in client.execute_command("CLUSTER", "SLOTS"):
        # A node that does not know its own name means the address at which it was asked.
        shard = [Node(_text(host) or asked.host, port) for host, port, *_ in members]
        slots[first : last + 1] = [shard[0]] * (last + 1 - first)
        nodes.update(dict.fromkeys(shard))
    return Map(slots, list(nodes))


def slot_of(key: Any) -> int:
    """Return the hash slot of a key."""
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _text(host: bytes | str | None) -> str:
    """Return the name of a host; empty for an unknown one."""
    name = host.decode() if isinstance(host, bytes) else host or ""
    return "" if name == "?" else name

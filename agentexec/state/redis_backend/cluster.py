"""Client of a Redis Cluster, which sends each command to the node that has its key.

redis-py's own client of clusters is not used: after a lost connection its pipelines send commands again, so mail would be
taken twice, and it cannot follow a redirection to a node that has no slot yet, which resharding onto a new node sends.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import redis
from redis.client import Pipeline
from redis.commands import CoreCommands
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from agentexec.state.redis_backend.address import Node

REDIRECTIONS = 6
"""Nodes that one command tries before it fails."""

TRY_AGAIN_SECONDS = 0.05
"""Pause before a command is sent again whose keys are on their way to another node."""

AWAY = (redis.ConnectionError, redis.TimeoutError, ClusterDownError, OSError)
"""Errors after which the cluster may have another map."""


class Call(NamedTuple):
    """Command of a client, with redis-py's options for its answer."""

    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def slot(self) -> int:
        """Hash slot of the first key; all keys of one call share it. Commands without a key may go anywhere."""
        place = 3 if self.args[0] in ("EVAL", "EVALSHA") else 1
        return slot_of(self.args[place]) if len(self.args) > place else 0


class ClusterClient(redis.Redis):
    """Client with the methods of that of one server, for commands whose keys share a hash slot.

    A command is sent again only where a node has refused to run it. Threads share it without locks, which a fork could
    leave locked: the map is replaced as a whole, and at worst it is read twice.

    Args:
        seeds: Nodes that are asked for the map, besides those of the last one.
        connect: Function that returns a client of one node; it decides about time-outs and retries.
    """

    def __init__(self, seeds: Sequence[Node], connect: Callable[[Node], redis.Redis]) -> None:
        self._seeds = tuple(seeds)
        self._connect = connect
        self._nodes: dict[Node, redis.Redis] = {}
        self._slots: list[Node | None] = []
        self._stale = True
        self._failed: Node | None = None
        super().__init__(connection_pool=self.at(self._seeds[0]).connection_pool)

    def at(self, node: Node) -> redis.Redis:
        """Return the client of a node."""
        return self._nodes.get(node) or self._nodes.setdefault(node, self._connect(node))

    def node_of(self, slot: int) -> Node:
        """Return the node that has a slot. Raises what redis-py raises if no node tells or none has it."""
        if self._stale or not self._slots:
            self._read_map()
        node = self._slots[slot]
        if node is None:
            self._stale = True
            raise ClusterDownError(f"no node of the cluster has hash slot {slot}")
        return node

    def primaries(self) -> list[redis.Redis]:
        """Return a client of each node that has slots, as they are now."""
        self._read_map()
        return [self.at(node) for node in dict.fromkeys(self._slots) if node]

    def close(self) -> None:
        """Disconnect from every node, also connections on which another thread waits."""
        for client in list(self._nodes.values()):
            client.connection_pool.disconnect()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the answer of the node that has the command's key."""
        call = Call(args, options)
        slot, asking = call.slot, False
        node = self.node_of(slot)
        for _ in range(REDIRECTIONS):
            try:
                return self._call(node, call, asking)
            except MovedError as moved:
                node, asking = self._target(moved, node), False
                self._slots[slot] = node
            except AskError as ask:
                node, asking = self._target(ask, node), True
            except TryAgainError:
                time.sleep(TRY_AGAIN_SECONDS)
            except AWAY:
                self.note_failure(node)
                raise
        raise redis.exceptions.TryAgainError(f"the nodes of hash slot {slot} pass a command to each other")

    def pipeline(self, transaction: Any = False, shard_hint: Any = None) -> Pipeline:
        """Return a list of commands, sent to each node in one round trip."""
        return cast("Pipeline", Batch(self))

    def note_failure(self, node: Node) -> None:
        """Read the map again before the next command, from another node if there is one."""
        self._failed, self._stale = node, True

    def _call(self, node: Node, call: Call, asking: bool) -> Any:
        if not asking:
            return self.at(node).execute_command(*call.args, **call.options)
        pipeline = self.at(node).pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*call.args, **call.options)
        return pipeline.execute()[1]

    def _target(self, redirection: AskError, asked: Node) -> Node:
        # A node that does not know its own name means the address at which it was asked.
        return Node(redirection.host or asked.host, redirection.port)

    def _read_map(self) -> None:
        """Ask nodes in random order, the one that failed last, until one tells who has which slots."""
        self._stale = False
        nodes = list(dict.fromkeys((*self._seeds, *self._nodes)))
        random.shuffle(nodes)
        nodes.sort(key=lambda node: node == self._failed)
        problem: Exception = ClusterDownError("no node of the cluster has a hash slot")
        for node in nodes:
            try:
                if any(slots := read_slots(self.at(node), node)):
                    self._slots = slots
                    return
            except (redis.RedisError, OSError) as error:
                problem = error
        self._stale = True
        raise problem


class Batch(CoreCommands):
    """Commands that are sent to each node in one round trip, in their order; those with one key keep their order."""

    def __init__(self, cluster: ClusterClient) -> None:
        self._cluster = cluster
        self._calls: list[Call] = []

    def execute_command(self, *args: Any, **options: Any) -> Batch:
        """Add a command."""
        self._calls.append(Call(args, options))
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands and return their answers. Nodes that can be reached get theirs if another one fails."""
        places: defaultdict[Node, list[int]] = defaultdict(list)
        for place, call in enumerate(self._calls):
            places[self._cluster.node_of(call.slot)].append(place)
        answers: list[Any] = [None] * len(self._calls)
        failure: Exception | None = None
        for node, chosen in places.items():
            try:
                for place, answer in zip(chosen, self._send(node, chosen), strict=True):
                    answers[place] = self._follow(place, answer)
            except AWAY as error:
                failure = error
        if failure is not None:
            raise failure
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if raise_on_error and errors:
            raise errors[0]
        return answers

    def _send(self, node: Node, chosen: Sequence[int]) -> list[Any]:
        pipeline = self._cluster.at(node).pipeline(transaction=False)
        for place in chosen:
            pipeline.execute_command(*self._calls[place].args, **self._calls[place].options)
        try:
            return pipeline.execute(raise_on_error=False)
        except AWAY:
            self._cluster.note_failure(node)
            raise

    def _follow(self, place: int, answer: Any) -> Any:
        """Return an answer, or that of the node to which a redirection leads."""
        if not isinstance(answer, AskError | TryAgainError):
            return answer
        call = self._calls[place]
        try:
            return self._cluster.execute_command(*call.args, **call.options)
        except redis.ResponseError as error:
            return error


def slot_of(key: Any) -> int:
    """Return the hash slot of a key."""
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def read_slots(client: redis.Redis, node: Node) -> list[Node | None]:
    """Return the primary of each hash slot as a node knows them; none of a node that is in no cluster."""
    slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, primary, *_ in client.execute_command("CLUSTER", "SLOTS"):
        host = primary[0] or b""
        name = host.decode() if isinstance(host, bytes) else host
        slots[first : last + 1] = [Node(name or node.host, primary[1])] * (last + 1 - first)
    return slots


def node_of(client: redis.Redis, key: str) -> redis.Redis:
    """Return the client of the server that has a key."""
    return client.at(client.node_of(slot_of(key))) if isinstance(client, ClusterClient) else client


def primaries_of(client: redis.Redis) -> list[redis.Redis]:
    """Return a client of each server that has keys."""
    return client.primaries() if isinstance(client, ClusterClient) else [client]

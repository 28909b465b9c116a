"""Client of a Redis Cluster, which sends each command to the node that has its key.

redis-py's own client of clusters is not used: after a lost connection its pipelines send commands again, so mail would be
taken twice, and it cannot follow a redirection to a node that has no slot yet, which resharding onto a new node sends.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import redis
from redis.client import Pipeline
from redis.commands import CoreCommands
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from agentexec.state.redis_backend.address import Node
from agentexec.state.redis_backend.refusals import NODE, noted
from agentexec.state.redis_backend.topology import Topology, slot_of

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

    A command is sent again only where a node has refused to run it.

    Args:
        connect: Function that returns a client of one node; it decides about time-outs and retries.
        seeds: Nodes that are asked for the map of the cluster.
        topology: The map of another client, to share it.
    """

    def __init__(
        self,
        connect: Callable[[Node], redis.Redis],
        seeds: Sequence[Node],
        topology: Topology | None = None,
    ) -> None:
        self._connect = connect
        self._nodes: dict[Node, redis.Redis] = {}
        self.topology = topology or Topology(seeds, self.at)
        super().__init__(connection_pool=self.at(seeds[0]).connection_pool)

    def at(self, node: Node) -> redis.Redis:
        """Return the client of a node."""
        return self._nodes.get(node) or self._add(node)

    def close(self) -> None:
        """Disconnect from every node, also connections on which another thread waits."""
        for client in list(self._nodes.values()):
            client.connection_pool.disconnect()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the answer of the node that has the command's key."""
        call = Call(args, options)
        slot, asking = call.slot, False
        node = self.topology.node_of(slot)
        for _ in range(REDIRECTIONS):
            try:
                return self._call(node, call, asking)
            except MovedError as moved:
                node, asking = _target(moved, node), False
                self.topology.note_move(slot, node)
            except AskError as ask:
                node, asking = _target(ask, node), True
            except TryAgainError:
                time.sleep(TRY_AGAIN_SECONDS)
            except AWAY as error:
                self.topology.note_failure(node)
                noted(error, NODE, *node)
                raise
            except redis.RedisError as error:
                noted(error, NODE, *node)
                raise
        raise TryAgainError(f"the nodes of hash slot {slot} pass a command to each other")

    def pipeline(self, transaction: Any = False, shard_hint: Any = None) -> Pipeline:
        """Return a list of commands, sent to each node in one round trip."""
        return cast("Pipeline", Batch(self))

    def _add(self, node: Node) -> redis.Redis:
        # Nodes that have left are forgotten; a call that is under way keeps its client.
        for other in list(self._nodes):
            if not self.topology.knows(other):
                self._nodes.pop(other, None)
        return self._nodes.setdefault(node, self._connect(node))

    def _call(self, node: Node, call: Call, asking: bool) -> Any:
        if not asking:
            return self.at(node).execute_command(*call.args, **call.options)
        pipeline = self.at(node).pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*call.args, **call.options)
        return pipeline.execute()[1]


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
            places[self._cluster.topology.node_of(call.slot)].append(place)
        answers: list[Any] = [None] * len(self._calls)
        failure: Exception | None = None
        for node, chosen in places.items():
            try:
                for place, answer in zip(chosen, self._send(node, chosen), strict=True):
                    if isinstance(answer, ClusterDownError):
                        self._cluster.topology.note_failure(node)
                    answers[place] = self._follow(place, _noted(answer, node))
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
        except AWAY as error:
            self._cluster.topology.note_failure(node)
            noted(error, NODE, *node)
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


def _noted(answer: Any, node: Node) -> Any:
    return noted(answer, NODE, *node) if isinstance(answer, Exception) else answer


def _target(redirection: AskError, asked: Node) -> Node:
    # A node that does not know its own name means the address at which it was asked.
    return Node(redirection.host or asked.host, redirection.port)


def node_of(client: redis.Redis, key: str) -> redis.Redis:
    """Return the client of the server that has a key."""
    return client.at(client.topology.node_of(slot_of(key))) if isinstance(client, ClusterClient) else client


def place_of(client: redis.Redis) -> Node:
    """Return host and port of a client of one server."""
    options = client.connection_pool.connection_kwargs
    return Node(options["host"], options["port"])


def primaries_of(client: redis.Redis) -> list[redis.Redis]:
    """Return a client of each server that has keys."""
    if not isinstance(client, ClusterClient):
        return [client]
    return [client.at(node) for node in client.topology.primaries()]

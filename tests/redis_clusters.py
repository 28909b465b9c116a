"""Clusters of Valkey on the loopback interface."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.servers import HOST, Valkey, free_port
from tests.waiting import wait_until

PRIMARIES = 3

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "redis.md"

LEAST_RULES = re.findall(r"[+~&]\S+", re.search(r"ACL SETUSER agentexec .*?```", GUIDE.read_text(), re.S)[0])  # type: ignore[index]
"""ACL rules of the guide."""


class ClusterNode(Valkey):
    """Node of a cluster, which another node follows when it dies."""

    def __init__(self) -> None:
        self.bus_port = free_port()  # the default, 10,000 above the other, may be in use
        super().__init__(
            settings={
                "cluster-enabled": "yes",
                "cluster-port": str(self.bus_port),
                "cluster-node-timeout": "1000",
                "cluster-require-full-coverage": "no",
                # A node that gives its last slot away stays a primary.
                "cluster-allow-replica-migration": "no",
                "repl-diskless-sync-delay": "0",
            }
        )

    @property
    def name(self) -> str:
        """Name by which the other nodes know it."""
        return f"{HOST}:{self.port}"

    def ask(self, *command: Any) -> Any:
        """Return the answer to a command."""
        with self.client() as client:
            return client.execute_command(*command)

    @property
    def id(self) -> str:
        """Id of the node, which stays the same over restarts."""
        return self.ask("CLUSTER", "MYID").decode()

    @property
    def state(self) -> str:
        """State of the cluster as the node sees it: ok or fail."""
        return self.ask("CLUSTER INFO")["cluster_state"]


class Sentinel(Valkey):
    """Sentinel that watches a server under the name `main`, and lets a replica take its place when it dies."""

    def __init__(self, watched: Valkey) -> None:
        self._watched = watched
        super().__init__()

    def _command(self) -> Sequence[str]:
        file = self.folder / "sentinel.conf"
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {self.folder}",
            f"sentinel monitor main {HOST} {self._watched.port} 1",
            "sentinel down-after-milliseconds main 1500",
            "sentinel failover-timeout main 3000",
        ]
        file.write_text("\n".join([*lines, ""]))
        return [self._binary, str(file), "--sentinel"]


class WatchedPair:
    """A primary, its replica and a Sentinel that watches them."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.primary, self.replica = Valkey(), Valkey(settings={"repl-diskless-sync-delay": "0"})
        self.sentinel = Sentinel(self.primary)

    def __enter__(self) -> Self:
        with ExitStack() as started:
            for server in (self.primary, self.replica):
                started.enter_context(server)
            with self.replica.client() as client:
                client.execute_command("REPLICAOF", HOST, self.primary.port)
                wait_until(lambda: client.execute_command("ROLE")[3] == b"connected")
            started.enter_context(self.sentinel)
            with self.sentinel.client() as client:
                wait_until(lambda: client.execute_command("SENTINEL", "REPLICAS", "main"))
            self._open = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def url(self) -> str:
        """URL of the primary by its Sentinels, the first of which is away."""
        return f"redis+sentinel://{HOST}:1,{HOST}:{self.sentinel.port}/main/0"


class Cluster:
    """Three primaries, as many replicas as wanted for each, and as many nodes without slots. A test may kill nodes and move slots."""

    def __init__(self, *, replicas: int = 1, spares: int = 0) -> None:
        self._open = ExitStack()
        self.nodes = [ClusterNode() for _ in range(PRIMARIES * (1 + replicas))]
        self.spares = [ClusterNode() for _ in range(spares)]

    def __enter__(self) -> Self:
        with ExitStack() as started:
            for node in (*self.nodes, *self.spares):
                started.enter_context(node)
            self._join()
            self._open = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    @property
    def url(self) -> str:
        """URL of one node."""
        return self.nodes[0].url

    def limited_url(self) -> str:
        """Return the URL of every node for a user with exactly the rules of the guide."""
        for node in self.nodes:
            node.ask("ACL", "SETUSER", "limited", "reset", "on", ">pw", *LEAST_RULES)
        return self.list_url.replace("//", "//limited:pw@")

    @property
    def list_url(self) -> str:
        """URL of every node."""
        return f"redis://{','.join(node.name for node in self.nodes)}"

    def flush(self) -> None:
        """Delete all keys."""
        for node in self.primaries():
            node.flush()

    def primaries(self) -> list[ClusterNode]:
        """Return the nodes that have slots."""
        return [node for node in self.nodes if node.running and node.ask("ROLE")[0] == b"master"]

    def owner(self, key: str) -> ClusterNode:
        """Return the node that has a key."""
        slot = key_slot(key.encode())
        for first, last, primary, *_ in self.primaries()[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in (*self.nodes, *self.spares) if node.port == primary[1])
        raise LookupError(key)

    def replica_of(self, primary: ClusterNode) -> ClusterNode:
        """Return the replica of a primary."""
        [line] = primary.ask("CLUSTER", "REPLICAS", primary.id)[:1]
        address = (line.decode() if isinstance(line, bytes) else line).split()[1]
        return next(node for node in self.nodes if address.startswith(f"{node.name}@"))

    def move(self, key: str, target: ClusterNode) -> None:
        """Move the slot of a key to another node, as redis-cli does: key by key, while clients use it."""
        with self.half_moved(key, target):
            pass

    @contextmanager
    def half_moved(self, key: str, target: ClusterNode) -> Iterator[None]:
        """Keep the slot of a key between two nodes within the block, and complete the move after it."""
        slot, source = key_slot(key.encode()), self.owner(key)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        yield
        for name in self._keys_of(source, slot):
            source.ask("MIGRATE", HOST, target.port, name, 0, 5000)
        owner = target.id
        for node in (target, source, *self.primaries()):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def _keys_of(self, node: ClusterNode, slot: int) -> Iterator[bytes]:
        while names := node.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            yield from names

    def _join(self) -> None:
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        step = REDIS_CLUSTER_HASH_SLOTS // PRIMARIES + 1
        for number, node in enumerate(primaries):
            last = min((number + 1) * step, REDIS_CLUSTER_HASH_SLOTS) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * step, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in (*self.nodes[1:], *self.spares):
            self.nodes[0].ask("CLUSTER", "MEET", HOST, node.port, node.bus_port)
        ids = {node: node.id for node in primaries}
        for number, node in enumerate(replicas):
            primary = primaries[number % PRIMARIES]
            wait_until(
                lambda node=node, primary=primary: ids[primary] in node.ask("CLUSTER", "NODES").__repr__()
            )
            node.ask("CLUSTER", "REPLICATE", ids[primary])
        wait_until(lambda: all(node.state == "ok" for node in (*self.nodes, *self.spares)), timeout=30)
        for node in replicas:
            wait_until(lambda node=node: node.ask("ROLE")[3] == b"connected")

"""Lua scripts as functions, and the keys of a queue that they are called with."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import redis

from agentexec.state.redis_backend.topology import slot_of
from agentexec.task import Lease

log = logging.getLogger("agentexec.redis")

T = TypeVar("T")

MAX_TASKS_PER_SCRIPT = 1000
"""Tasks in one call of a script: Lua unpacks about 8,000 values at once, and a script must not block the server for more
than a few milliseconds."""

MAX_ENTRIES_PER_SCRIPT = 500
"""Tasks that one call describes to a script, by up to 7 arguments each: ElastiCache Serverless takes 3,999 in all."""

QUEUE_TYPES = (
    "zset",
    "zset",
    "zset",
    "hash",
    "zset",
    "list",
    "zset",
    "zset",
    "zset",
    "hash",
    "hash",
    "zset",
    "zset",
    "hash",
)
"""Types of `QueueKeys`."""

_LUA = files("agentexec.state.redis_backend") / "lua"


class QueueKeys(NamedTuple):
    """Keys of a queue, in the order of `queue.lua`, all in one hash slot."""

    high: str
    low: str
    delayed: str
    entry: str
    leases: str
    wake: str
    fair: str
    turn_high: str
    turn_low: str
    flow: str
    groups: str
    held: str
    line: str
    parked: str

    @property
    def intact(self) -> str:
        """Key that says that the index of the queue is complete."""
        return self.wake.removesuffix("wake") + "intact"


class SignedLease(NamedTuple):
    """Lease as the server knows it, with the signature of its entry (empty without one)."""

    lease: Lease
    signature: bytes


class Script:
    """Script that the server knows by its digest once it has run there. `types` are those of its keys; the last repeats.

    A key of another type was written by somebody else. The script then fails, possibly halfway, and is run again
    without that key: the reconciler restores from the record what is lost.
    """

    def __init__(self, name: str, *types: str, prelude: Sequence[str] = ()) -> None:
        self._types = types
        sources = [(_LUA / f"{part}.lua").read_text(encoding="utf-8") for part in (*prelude, name)]
        self.source = "\n".join(sources)
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: Sequence[str], *args: str | int) -> Any:
        return without_foreign_keys(client, keys, self._types, lambda: self.run(client, keys, *args))

    def run(self, client: redis.Redis, keys: Sequence[str], *args: str | int) -> Any:
        """Run the script, which fails at a key of another type."""
        try:
            return client.execute_command("EVALSHA", self.digest, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            # The server has not run the script since its start. Sending it now is safe: nothing has run yet.
            return client.execute_command("EVAL", self.source, len(keys), *keys, *args)


def without_foreign_keys(
    client: redis.Redis, keys: Sequence[str], types: Sequence[str], call: Callable[[], T]
) -> T:
    """Return what a call returns that uses keys of these types, the last of which repeats.

    If a key has another type, it is removed, and the call made again.
    """
    try:
        return call()
    except redis.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
    kinds = itertools.chain(types, itertools.repeat(types[-1]))
    pairs = sorted(zip(keys, kinds, strict=False), key=lambda pair: slot_of(pair[0]))
    for _, same_slot in itertools.groupby(pairs, key=lambda pair: slot_of(pair[0])):
        chunk_keys, chunk_types = zip(*same_slot, strict=True)
        dropped = _DROP_FOREIGN(client, chunk_keys, *chunk_types)
        if dropped:
            log.warning(
                "Removed %d key(s) of another type from Redis, such as %s: agentexec did not write them. What belongs there is "
                "restored from the database.",
                len(dropped),
                name_of(dropped[0]),
            )
    if isinstance(keys, QueueKeys):
        client.delete(keys.intact)
    return call()


_DROP_FOREIGN = Script("drop_foreign", "none")


def name_of(raw: bytes) -> str:
    """Return the name of a worker or mailbox; for invalid bytes a name that nobody has."""
    return raw.decode("utf-8", "replace")


def signed_leases(reply: Sequence[Any]) -> list[SignedLease]:
    """Return the leases of a script's reply: id, epoch and signature of each."""
    parts = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
    return [SignedLease(Lease(uuid_of(raw), epoch), signature) for raw, epoch, signature in parts]


def uuid_of(raw: bytes) -> UUID:
    """Return the id of a task in a reply."""
    # Twice as fast as UUID(hex=...), which looks for braces and hyphens first.
    return UUID(int=int(raw, 16))

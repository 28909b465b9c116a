"""Typed functions that call the Lua scripts of `redis_backend/lua`.

Times are seconds here and microseconds in the scripts. One call takes at most `MAX_TASKS_PER_SCRIPT` tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from uuid import UUID

import redis

from agentexec.db.chunks import chunks
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand
from agentexec.state.backend import EVENT_TTL_SECONDS, EVENTS_KEPT, FOLLOW_TTL_SECONDS, Depth, LostLeases
from agentexec.task import Entry, Lease, Priority

MAX_TASKS_PER_SCRIPT = 1000
"""Tasks in one call of a script: Lua unpacks about 8,000 values at once, and a script must not block the server for more
than a few milliseconds."""

LANES = {Priority.HIGH: "h", Priority.LOW: "l"}
_LUA = files("agentexec.state.redis_backend") / "lua"


class QueueKeys(NamedTuple):
    """Keys of a queue, in the order of `queue.lua`, all in one hash slot."""

    high: str
    low: str
    delayed: str
    entry: str
    leases: str
    wake: str


class SignedLease(NamedTuple):
    """Lease as the server knows it, with the signature of its entry (empty without one)."""

    lease: Lease
    signature: bytes


Sign = Callable[[UUID], str]
"""Function that returns the signature of a task's entry; empty without signing keys."""


class Script:
    """Script that the server knows by its digest once it has run there."""

    def __init__(self, name: str, *, prelude: str = "") -> None:
        sources = [(_LUA / f"{part}.lua").read_text(encoding="utf-8") for part in (prelude, name) if part]
        self.source = "\n".join(sources)
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: Sequence[str], *args: str | int) -> Any:
        try:
            return client.execute_command("EVALSHA", self.digest, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            # The server has not run the script since its start. Sending it now is safe: nothing has run yet.
            return client.execute_command("EVAL", self.source, len(keys), *keys, *args)


_PUSH = Script("push", prelude="queue")
_WAKE = Script("wake", prelude="queue")
_CLAIM = Script("claim", prelude="queue")
_RENEW = Script("renew", prelude="queue")
_FINISH = Script("finish", prelude="queue")
_RELEASE = Script("release", prelude="queue")
_MAKE_READY = Script("make_ready", prelude="queue")
_RESTORE = Script("restore", prelude="queue")
_EXPIRED_LEASES = Script("expired_leases", prelude="queue")
_WORKER_LEASES = Script("worker_leases", prelude="queue")
_REMOVE = Script("remove", prelude="queue")
_UNKNOWN_TASKS = Script("unknown_tasks", prelude="queue")
_DEPTH = Script("depth", prelude="queue")
_TAKE_WATCHERS = Script("take_watchers")
_SEND = Script("send")
_PUBLISH = Script("publish")
_FOLLOW = Script("follow")
_ACQUIRE_LEADERSHIP = Script("acquire_leadership")
_RELEASE_LEADERSHIP = Script("release_leadership")
_RESERVE = Script("reserve")


def push(client: redis.Redis, keys: QueueKeys, entries: Sequence[Entry], sign: Sign) -> None:
    """Add tasks that have no entry, and wake as many workers."""
    args: list[str | int] = []
    for agent_id, priority, run_at, epoch in entries:
        args += (agent_id.hex, LANES[priority], int(run_at * MICROS_PER_SECOND), epoch, sign(agent_id))
    _PUSH(client, keys, *args)


def wake(client: redis.Redis, keys: QueueKeys, count: int) -> None:
    """Wake up to `count` waiting workers."""
    _WAKE(client, keys, count)


def claim(
    client: redis.Redis, keys: QueueKeys, *, worker: str, limit: int, low_quota: int, lease_seconds: float
) -> tuple[list[SignedLease], float | None]:
    """Lease ready tasks, each with its next epoch; also return the seconds until the next delayed task is due."""
    next_due, *leases = _CLAIM(client, keys, worker, limit, low_quota, int(lease_seconds * MICROS_PER_SECOND))
    return _signed_leases(leases), None if next_due < 0 else next_due / MICROS_PER_SECOND


def renew(
    client: redis.Redis, keys: QueueKeys, *, worker: str, leases: Sequence[Lease], lease_seconds: float
) -> LostLeases:
    """Extend the leases that no other worker has taken."""
    taken, missing = _RENEW(client, keys, worker, int(lease_seconds * MICROS_PER_SECOND), *_pairs(leases))
    return LostLeases([_uuid(raw) for raw in taken], [_uuid(raw) for raw in missing])


def finish(client: redis.Redis, keys: QueueKeys, leases: Sequence[Lease]) -> None:
    """Forget the tasks that no higher epoch holds."""
    _FINISH(client, keys, *_pairs(leases))


def release(client: redis.Redis, keys: QueueKeys, lease: Lease, *, delay: float) -> bool:
    """Make a leased task ready or delayed. Return False if the lease is lost."""
    return bool(_RELEASE(client, keys, lease.agent_id.hex, lease.epoch, int(delay * MICROS_PER_SECOND)))


def make_ready(client: redis.Redis, keys: QueueKeys, agent_ids: Sequence[UUID]) -> None:
    """Make delayed tasks ready now."""
    _MAKE_READY(client, keys, *(agent_id.hex for agent_id in agent_ids))


def restore(
    client: redis.Redis, keys: QueueKeys, entries: Sequence[Entry], sign: Sign, *, lease_seconds: float
) -> None:
    """Add tasks that have no entry, leased to nobody."""
    args: list[str | int] = []
    for entry in entries:
        args += (entry.agent_id.hex, LANES[entry.priority], entry.epoch, sign(entry.agent_id))
    _RESTORE(client, keys, int(lease_seconds * MICROS_PER_SECOND), *args)


def expired_leases(client: redis.Redis, keys: QueueKeys, *, limit: int) -> list[SignedLease]:
    """Return leases that have expired, the oldest first."""
    return _signed_leases(_EXPIRED_LEASES(client, keys, limit))


def worker_leases(client: redis.Redis, keys: QueueKeys, *, worker: str) -> list[SignedLease]:
    """Return the leases of a worker."""
    return _signed_leases(_WORKER_LEASES(client, keys, worker))


def remove(client: redis.Redis, keys: QueueKeys, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Remove tasks, and return the workers that held them."""
    reply = _REMOVE(client, keys, *(agent_id.hex for agent_id in agent_ids))
    return {_uuid(raw): _name(worker) for raw, worker in zip(reply[::2], reply[1::2], strict=True)}


def unknown_tasks(client: redis.Redis, keys: QueueKeys, agent_ids: Sequence[UUID]) -> list[UUID]:
    """Return the tasks that the index does not know, or that are in no set."""
    places = _UNKNOWN_TASKS(client, keys, *(agent_id.hex for agent_id in agent_ids))
    return [agent_ids[place - 1] for place in places]


def depth(client: redis.Redis, keys: QueueKeys) -> Depth:
    """Count ready, delayed and leased tasks."""
    return Depth(*_DEPTH(client, keys))


def take_watchers(client: redis.Redis, watch_keys: Sequence[str]) -> list[set[str]]:
    """End the watches of tasks, and return the mailboxes that watched each of them."""
    return [{_name(name) for name in names} for names in _TAKE_WATCHERS(client, watch_keys)]


def send_all(client: redis.Redis, messages: Mapping[str, Sequence[str]], *, ttl: int) -> None:
    """Put messages into mailboxes, given by key, in one round trip."""
    pipeline = client.pipeline(transaction=False)
    for key, texts in messages.items():
        for chunk in chunks(texts, MAX_TASKS_PER_SCRIPT):
            # By source, not by digest: a pipeline cannot react to a reply that the script is unknown.
            pipeline.execute_command("EVAL", _SEND.source, 1, key, ttl, *chunk)
    pipeline.execute()


def publish(client: redis.Redis, keys: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Append events to a task's stream (first key), and return the mailboxes that follow it (second key)."""
    return [_name(name) for name in _PUBLISH(client, keys, EVENTS_KEPT, EVENT_TTL_SECONDS, *texts)]


def follow(client: redis.Redis, follow_keys: Sequence[str], mailbox: str) -> None:
    """Add a mailbox to the followers of tasks."""
    _FOLLOW(client, follow_keys, mailbox, FOLLOW_TTL_SECONDS)


def acquire_leadership(client: redis.Redis, key: str, *, owner: str, seconds: float) -> bool:
    """Acquire or keep a leadership."""
    return bool(_ACQUIRE_LEADERSHIP(client, [key], owner, max(1, int(seconds * 1000))))


def release_leadership(client: redis.Redis, key: str, *, owner: str) -> None:
    """Give up a leadership if `owner` holds it."""
    _RELEASE_LEADERSHIP(client, [key], owner)


def reserve(
    client: redis.Redis, keys: Sequence[str], demands: Sequence[Demand], *, max_wait: float | None
) -> float:
    """Take from buckets, one key for each demand, and return the seconds to wait. `max_wait` None: take after any wait."""
    if not demands:
        return 0.0
    args = [part for demand in demands for part in (demand.refill_micros, demand.full_refill_micros)]
    wait = _RESERVE(client, keys, -1 if max_wait is None else int(max_wait * MICROS_PER_SECOND), *args)
    return int(wait) / MICROS_PER_SECOND


def _pairs(leases: Sequence[Lease]) -> list[str | int]:
    args: list[str | int] = []
    for agent_id, epoch in leases:
        args += (agent_id.hex, epoch)
    return args


def _signed_leases(reply: Sequence[Any]) -> list[SignedLease]:
    parts = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
    return [SignedLease(Lease(_uuid(raw), epoch), signature) for raw, epoch, signature in parts]


def _name(raw: bytes) -> str:
    """Return the name of a worker or mailbox; for invalid bytes a name that nobody has."""
    return raw.decode("utf-8", "replace")


def _uuid(raw: bytes) -> UUID:
    # Twice as fast as UUID(hex=...), which looks for braces and hyphens first.
    return UUID(int=int(raw, 16))

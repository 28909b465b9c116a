"""Typed functions that call the Lua scripts of `redis_backend/lua`.

Times are seconds here and microseconds in the scripts. One call takes at most `MAX_TASKS_PER_SCRIPT` tasks.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

import redis

from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand
from agentexec.policy import MAX_EPOCH_LEAD, MAX_LEAVE_SECONDS
from agentexec.state.answers import Waiting
from agentexec.state.backend import (
    EVENT_TTL_SECONDS,
    EVENTS_KEPT,
    FOLLOW_TTL_SECONDS,
    Comparison,
    Depth,
    LostLeases,
    TaskPage,
    longest_leadership,
)
from agentexec.state.redis_backend.cluster import ClusterClient
from agentexec.state.redis_backend.script import (
    MAX_TASKS_PER_SCRIPT,
    QUEUE_TYPES,
    QueueKeys,
    Script,
    SignedLease,
    name_of,
    signed_leases,
    uuid_of,
    without_foreign_keys,
)
from agentexec.state.redis_backend.waits import wait_for_any
from agentexec.task import Entry, Lease, Priority

log = logging.getLogger("agentexec.redis")

T = TypeVar("T")

CURSOR = re.compile(r"[1-9]:[0-9]{1,20}")
"""Cursor of `list_tasks`: the place in the walk, and the server's cursor there."""

TURN = 1_000_000
"""Millionths of one turn."""

LANES = {Priority.HIGH: "h", Priority.LOW: "l"}
GROUPED = ("queue", "groups")
"""Prefixes of the scripts that change or read the groups of tasks."""


Sign = Callable[[UUID], str]
"""Function that returns the signature of a task's entry; empty without signing keys."""


_PUSH = Script("push", *QUEUE_TYPES, prelude=GROUPED)
_WAKE = Script("wake", *QUEUE_TYPES, prelude=("queue",))
_CLAIM = Script("claim", *QUEUE_TYPES, prelude=GROUPED)
_RENEW = Script("renew", *QUEUE_TYPES, prelude=GROUPED)
_FINISH = Script("finish", *QUEUE_TYPES, prelude=(*GROUPED, "finishing"))
_FINISH_WATCHED = Script("finish_watched", *QUEUE_TYPES, "set", prelude=(*GROUPED, "finishing", "watches"))
_RELEASE = Script("release", *QUEUE_TYPES, prelude=GROUPED)
_MAKE_READY = Script("make_ready", *QUEUE_TYPES, prelude=("queue",))
_RESTORE = Script("restore", *QUEUE_TYPES, prelude=GROUPED)
_EXPIRED_LEASES = Script("expired_leases", *QUEUE_TYPES, prelude=("queue", "expired"))
_INSPECT = Script("inspect", *QUEUE_TYPES, "string", prelude=("queue", "expired"))
_WORKER_LEASES = Script("worker_leases", *QUEUE_TYPES, prelude=("queue",))
_REMOVE = Script("remove", *QUEUE_TYPES, prelude=GROUPED)
_UNKNOWN_TASKS = Script("unknown_tasks", *QUEUE_TYPES, prelude=("queue",))
_COMPARE = Script("compare", *QUEUE_TYPES, prelude=GROUPED)
_WAITING_FOR = Script("waiting_for", *QUEUE_TYPES, prelude=GROUPED)
_LIST_TASKS = Script("list_tasks", *QUEUE_TYPES, prelude=GROUPED)
_MARK_INTACT = Script("mark_intact", *QUEUE_TYPES, prelude=GROUPED)
_INTACT = Script("intact", "string")
_DEPTH = Script("depth", *QUEUE_TYPES, prelude=("queue",))
_TAKE_WATCHERS = Script("take_watchers", "set", prelude=("watches",))
_SEND = Script("send", "list")
_PUBLISH = Script("publish", "stream", "zset")
_FOLLOW = Script("follow", "zset")
_ACQUIRE_LEADERSHIP = Script("acquire_leadership", "string")
_RELEASE_LEADERSHIP = Script("release_leadership", "string")
_RESERVE = Script("reserve", "string")


def push(client: redis.Redis, keys: QueueKeys, entries: Sequence[Entry], sign: Sign) -> None:
    """Add tasks that have no entry, and wake as many workers."""
    args: list[str | int] = []
    now = utc_now().timestamp()
    for entry in entries:
        # Clocks differ: only a moment in the past is compared with those that the server has noted.
        agent_id = entry.agent_id
        wait = _wait(entry.run_at, now) or -round(entry.since * MICROS_PER_SECOND)
        args += (
            agent_id.hex,
            LANES[entry.priority],
            wait,
            entry.epoch,
            sign(agent_id),
            _flow(entry),
            _groups(entry),
        )
    _PUSH(client, keys, *args)


def _flow(entry: Entry) -> str:
    """Return the hash of a task's fairness key, and the millionths of a turn that the task takes; empty without a key."""
    if entry.fairness_key is None:
        return ""
    key = hashlib.blake2b(entry.fairness_key.encode(), digest_size=8).hexdigest()
    return f"{key}{max(1, round(TURN / entry.fairness_weight)):010d}"


def _groups(entry: Entry) -> str:
    """Return the groups of an entry as the scripts read them."""
    return ("+" if entry.holds_lock else "-") + "\0".join(entry.groups) if entry.groups else ""


def _wait(run_at: float, now: float) -> int:
    """Return the microseconds until a moment. Redis adds them to its own time: its clock and the record's may differ."""
    return max(0, int((run_at - now) * MICROS_PER_SECOND))


def mark_intact(client: redis.Redis, keys: QueueKeys, run_id: str) -> None:
    """Note that the index is complete on this run of the server, and let a task into each lock that nobody has."""
    _MARK_INTACT(client, keys, run_id)


def wake(client: redis.Redis, keys: QueueKeys, count: int) -> None:
    """Wake up to `count` waiting workers."""
    _WAKE(client, keys, count)


def claim(
    client: redis.Redis,
    keys: QueueKeys,
    *,
    worker: str,
    limit: int,
    low_quota: int,
    lease_seconds: float,
    limits: Mapping[str, int],
) -> tuple[list[SignedLease], float | None]:
    """Lease ready tasks, each with its next epoch; also return the seconds until the next delayed task is due."""
    length = int(lease_seconds * MICROS_PER_SECOND)
    pairs = itertools.chain.from_iterable(limits.items())
    next_due, *leases = _CLAIM(client, keys, worker, limit, low_quota, length, *pairs)
    return signed_leases(leases), None if next_due < 0 else next_due / MICROS_PER_SECOND


def wait(client: redis.Redis, queues: Sequence[QueueKeys], timeout: float) -> None:
    """Wait until a worker of one of the queues is to wake."""
    wake = [keys.wake for keys in queues]

    def take() -> None:
        if isinstance(client, ClusterClient) and len(wake) > 1:
            wait_for_any(client, wake, timeout)
        else:
            client.blpop(wake, timeout=timeout)

    without_foreign_keys(client, wake, ("list",), take)


def renew(
    client: redis.Redis, keys: QueueKeys, *, worker: str, leases: Sequence[Lease], lease_seconds: float
) -> LostLeases:
    """Extend the leases that no other worker has taken."""
    taken, missing = _RENEW(client, keys, worker, int(lease_seconds * MICROS_PER_SECOND), *_pairs(leases))
    return LostLeases([uuid_of(raw) for raw in taken], [uuid_of(raw) for raw in missing])


def finish(client: redis.Redis, keys: QueueKeys, leases: Sequence[Lease]) -> None:
    """Forget the tasks that no higher epoch holds."""
    _FINISH(client, keys, *_pairs(leases))


def finish_watched(
    client: redis.Redis, keys: QueueKeys, leases: Sequence[Lease], watch_keys: Sequence[str]
) -> list[set[str]] | None:
    """Forget tasks, end their watches, and return the mailboxes of each; None if a key has another type.

    Some of it may be done then. All of it may be done again.
    """
    try:
        return _mailboxes(_FINISH_WATCHED.run(client, [*keys, *watch_keys], *_pairs(leases)))
    except redis.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return None


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
        args += (
            entry.agent_id.hex,
            LANES[entry.priority],
            entry.epoch,
            sign(entry.agent_id),
            _flow(entry),
            _groups(entry),
        )
    _RESTORE(client, keys, int(lease_seconds * MICROS_PER_SECOND), *args)


def expired_leases(client: redis.Redis, keys: QueueKeys, *, limit: int) -> tuple[list[SignedLease], bool]:
    """Return leases that have expired, the oldest first, and whether data that hid others was removed."""
    removed, *leases = _EXPIRED_LEASES(client, keys, limit)
    return signed_leases(leases), removed > 0


def inspect(
    client: redis.Redis, keys: QueueKeys, *, limit: int
) -> tuple[bytes | None, bytes | None, list[SignedLease], bool] | None:
    """Return what `intact` and `expired_leases` do, in one round trip; None if a key has another type."""
    try:
        mark, run_id, removed, *leases = _INSPECT.run(client, [*keys, keys.intact], limit)
    except redis.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return None
    return mark, run_id, signed_leases(leases), removed > 0


def worker_leases(client: redis.Redis, keys: QueueKeys, *, worker: str) -> list[SignedLease]:
    """Return the leases of a worker."""
    return signed_leases(_WORKER_LEASES(client, keys, worker))


def remove(client: redis.Redis, keys: QueueKeys, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Remove tasks, and return the workers that held them."""
    reply = _REMOVE(client, keys, *(agent_id.hex for agent_id in agent_ids))
    return {uuid_of(raw): name_of(worker) for raw, worker in zip(reply[::2], reply[1::2], strict=True)}


def unknown_tasks(client: redis.Redis, keys: QueueKeys, agent_ids: Sequence[UUID]) -> list[UUID]:
    """Return the tasks that the index does not know, or that are in no set."""
    places = _UNKNOWN_TASKS(client, keys, *(agent_id.hex for agent_id in agent_ids))
    return [agent_ids[place - 1] for place in places]


def compare(
    client: redis.Redis, keys: QueueKeys, entries: Sequence[Entry], lease_seconds: float
) -> Comparison:
    """Return the tasks that the index does not know, and those whose entries cannot follow from the record."""
    args: list[str | int] = []
    now = utc_now().timestamp()
    for entry in entries:
        args += (entry.agent_id.hex, _wait(entry.run_at, now), entry.epoch, _groups(entry))
    limits = (int(seconds * MICROS_PER_SECOND) for seconds in (lease_seconds, MAX_LEAVE_SECONDS))
    missing, wrong = _COMPARE(client, keys, *limits, MAX_EPOCH_LEAD, *args)
    return Comparison(*([entries[place - 1].agent_id for place in places] for places in (missing, wrong)))


def list_tasks(client: redis.Redis, keys: QueueKeys, cursor: str) -> TaskPage:
    """Return some tasks that the index knows, and remove what cannot belong to a task."""
    place, _, scan = cursor.partition(":") if CURSOR.fullmatch(cursor) else ("1", ":", "0")
    next_place, next_scan, removed, *ids = _LIST_TASKS(client, keys, place, scan, MAX_TASKS_PER_SCRIPT)
    if removed:
        log.warning("Removed %d entry(ies) from %s that belong to no task.", removed, keys.entry)
    return TaskPage([uuid_of(raw) for raw in ids], f"{next_place}:{next_scan.decode()}" if next_place else "")


def waiting_for(client: redis.Redis, keys: QueueKeys, agent_id: UUID) -> Waiting | None:
    """Return the group for which a task waits, None if it does not."""
    reply = _WAITING_FOR(client, keys, agent_id.hex)
    if not reply:
        return None
    group, before, holders = reply
    return Waiting(name_of(group), before, [uuid_of(raw) for raw in holders])


def depth(client: redis.Redis, keys: QueueKeys) -> Depth:
    """Count ready, delayed and leased tasks."""
    return Depth(*_DEPTH(client, keys))


def intact(client: redis.Redis, key: str) -> tuple[bytes | None, bytes | None]:
    """Return the mark of a complete index, and the id of this run of the server; None where the user may not read it."""
    mark, run_id = _INTACT(client, [key])
    return mark, run_id


def watch(client: redis.Redis, watch_keys: Sequence[str], mailbox: str, *, ttl: int) -> None:
    """Add a mailbox to those that watch tasks, in one round trip."""

    def add() -> None:
        pipeline = client.pipeline(transaction=False)
        for key in watch_keys:
            pipeline.sadd(key, mailbox)
            pipeline.expire(key, ttl)
        pipeline.execute()

    without_foreign_keys(client, watch_keys, ("set",), add)


def receive(client: redis.Redis, key: str, *, block: float | None, most: int) -> list[bytes]:
    """Take up to `most` messages from a mailbox, oldest first; wait up to `block` seconds for the first one."""

    def take() -> list[bytes]:
        pipeline = client.pipeline(transaction=False)
        if block is not None:
            pipeline.blpop([key], timeout=block)
        pipeline.lpop(key, most)
        *first, further = pipeline.execute()
        return [popped[1] for popped in first if popped] + (further or [])

    return without_foreign_keys(client, [key], ("list",), take)


def take_watchers(client: redis.Redis, watch_keys: Sequence[str]) -> list[set[str]]:
    """End the watches of tasks, and return the mailboxes that watched each of them."""
    return _mailboxes(_TAKE_WATCHERS(client, watch_keys))


def _mailboxes(watchers: Sequence[Sequence[bytes]]) -> list[set[str]]:
    return [{name_of(name) for name in names} for names in watchers]


def send_all(client: redis.Redis, messages: Mapping[str, Sequence[str]], *, ttl: int) -> None:
    """Put messages into mailboxes, given by key, in one round trip."""
    if len(messages) == 1:
        [(key, texts)] = messages.items()
        if len(texts) <= MAX_TASKS_PER_SCRIPT:
            _SEND(client, [key], ttl, *texts)
            return

    def send() -> None:
        pipeline = client.pipeline(transaction=False)
        for key, texts in messages.items():
            for chunk in chunks(texts, MAX_TASKS_PER_SCRIPT):
                # By source, not by digest: a pipeline cannot react to a reply that the script is unknown.
                pipeline.execute_command("EVAL", _SEND.source, 1, key, ttl, *chunk)
        pipeline.execute()

    without_foreign_keys(client, list(messages), ("list",), send)


def publish(client: redis.Redis, keys: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Append events to a task's stream (first key), and return the mailboxes that follow it (second key)."""
    return [name_of(name) for name in _PUBLISH(client, keys, EVENTS_KEPT, EVENT_TTL_SECONDS, *texts)]


def follow(client: redis.Redis, follow_keys: Sequence[str], mailbox: str) -> None:
    """Add a mailbox to the followers of tasks."""
    _FOLLOW(client, follow_keys, mailbox, FOLLOW_TTL_SECONDS)


def acquire_leadership(client: redis.Redis, key: str, *, owner: str, seconds: float) -> bool:
    """Acquire or keep a leadership."""
    length, longest = (max(1, int(part * 1000)) for part in (seconds, longest_leadership(seconds)))
    return bool(_ACQUIRE_LEADERSHIP(client, [key], owner, length, longest))


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

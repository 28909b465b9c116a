"""The state backend on Redis or Valkey: the fastest, and the one that wakes workers in well under a millisecond.

Keys, behind `AGENTEXEC_KEY_PREFIX`: everything of a queue in one hash slot, `{prefix:queue}:high`, `:low`,
`:delayed`, `:entry`, `:leases`, `:wake`, `:intact`, `:watch:<id>`, `:events:<id>` (a stream) and `:follow:<id>` (mailboxes by
when they lapse; see `redis_backend/lua/queue.lua`); `prefix:mail:<name>`,
`prefix:leader:<role>`, `{prefix:bucket}:<name>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import redis

from agentexec.db.chunks import chunks
from agentexec.errors import UsageError
from agentexec.llm.rate_limits import Demand
from agentexec.state.backend import ClaimResult, Depth, LostLeases
from agentexec.state.redis_backend import scripts
from agentexec.state.redis_backend.connection import Connections, clamp_block_timeout
from agentexec.state.redis_backend.messages import RedisMessages
from agentexec.state.redis_backend.scripts import MAX_TASKS_PER_SCRIPT, QueueKeys, Sign, SignedLease
from agentexec.state.redis_backend.signing import Signer
from agentexec.task import Entry, Lease

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from agentexec.config import Settings

ENTRY = "entry"

OLDEST_SERVER = (6, 2)
"""The first release with LPOP of many, which `receive` needs."""


def create(settings: Settings, engine: Engine) -> RedisBackend:
    """The backend of `AGENTEXEC_REDIS_URL`; connects on first use. Raises UsageError without a usable URL."""
    if not settings.redis_url:
        raise UsageError(
            "The Redis state backend needs a server: set AGENTEXEC_REDIS_URL, for example to redis://localhost:6379/0."
        )
    return RedisBackend(settings.redis_url, settings.key_prefix, settings.signing_keys)


class RedisBackend(RedisMessages):
    """See `StateBackend`. Each call is one round trip for up to 1,000 tasks."""

    transactional = False

    def __init__(self, url: str, prefix: str, signing_keys: Sequence[str] = ()) -> None:
        super().__init__(Connections(url), prefix, Signer(signing_keys, prefix))

    def describe(self) -> str:
        """Version, memory and eviction of the server, for people. Raises UnavailableError."""
        with self._translating_errors():
            try:
                facts: dict[str, Any] = self._retrying_client.info("everything")
            except redis.exceptions.NoPermissionError:
                return "which may not be asked"
        name = "Valkey" if "valkey_version" in facts else "Redis"
        version = facts.get("valkey_version") or facts.get("redis_version")
        memory = facts.get("used_memory_human", "?")
        return f"{name} {version}, {memory} used, {facts.get('maxmemory_policy', 'unknown')}"

    def ping(self) -> None:
        """Reach the server; raises UsageError if it is too old, or may throw away what the queue needs."""
        with self._translating_errors():
            self._retrying_client.ping()
            try:
                facts: dict[str, Any] = self._retrying_client.info("everything")
            except redis.exceptions.NoPermissionError:
                return
        version = str(facts.get("redis_version", ""))
        if version and tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            raise UsageError(
                f"Redis at {self._connections.safe_url} is {version}; agentexec needs 6.2 or newer."
            )
        policy = str(facts.get("maxmemory_policy", ""))
        # The keys of a queue have no time to live, so the volatile policies leave them alone.
        if facts.get("maxmemory") and policy.startswith("allkeys"):
            raise UsageError(
                f"Redis at {self._connections.safe_url} would drop queued tasks when it is full (maxmemory-policy "
                f"{policy}); set maxmemory-policy to noeviction."
            )

    def close(self) -> None:
        """Close connections, also those that another thread waits on. The backend may be used again afterwards."""
        self._connections.close()

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        """Put tasks on a queue and wake as many workers. A task that is already there is left as it is."""
        self._refuse_transaction(transaction)
        with self._translating_errors():
            for chunk in chunks(entries, MAX_TASKS_PER_SCRIPT):
                scripts.push(self._retrying_client, self._keys(queue), chunk, self._sign(queue))

    def wake(self, queue: str, count: int) -> None:
        """Wake up to `count` workers that wait on a queue."""
        with self._translating_errors():
            scripts.wake(self._retrying_client, self._keys(queue), count)

    def claim(
        self, queue: str, worker: str, *, limit: int, low_quota: int, lease_seconds: float
    ) -> ClaimResult:
        """Lease up to `limit` ready tasks, 1,000 at most."""
        with self._translating_errors():
            # Never repeated: the leases of a claim whose reply is lost would be nobody's until they expire.
            claimed, next_due = scripts.claim(
                self._single_try_client,
                self._keys(queue),
                worker=worker,
                limit=min(limit, MAX_TASKS_PER_SCRIPT),
                low_quota=low_quota,
                lease_seconds=lease_seconds,
            )
            return ClaimResult(self._signed(queue, claimed), next_due)

    def wait(self, queue: str, timeout: float) -> None:
        """Return when a task may be ready on `queue`, or after `timeout` seconds, 10 at most."""
        if timeout > 0:
            with self._translating_errors():
                self._single_try_client.blpop([self._keys(queue).wake], timeout=clamp_block_timeout(timeout))

    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        """Extend leases. A lease that expired but was not claimed by another is taken up again."""
        lost = LostLeases([], [])
        with self._translating_errors():
            for chunk in chunks(leases, MAX_TASKS_PER_SCRIPT):
                taken, missing = scripts.renew(
                    self._retrying_client,
                    self._keys(queue),
                    worker=worker,
                    leases=chunk,
                    lease_seconds=lease_seconds,
                )
                lost.taken.extend(taken)
                lost.missing.extend(missing)
        return lost

    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        """Forget finished tasks, unless a higher epoch holds them."""
        self._refuse_transaction(transaction)
        with self._translating_errors():
            for chunk in chunks(leases, MAX_TASKS_PER_SCRIPT):
                scripts.finish(self._retrying_client, self._keys(queue), chunk)

    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        """Give a task back: to the front of its priority, or after `delay` seconds. False if not ours any more."""
        with self._translating_errors():
            # Never repeated: the second reply would say that the lease is gone, which the first has made so.
            return scripts.release(self._single_try_client, self._keys(queue), lease, delay=delay)

    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Make delayed tasks ready now, and wake workers; tasks that are ready, leased or unknown stay as they are."""
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                scripts.make_ready(self._retrying_client, self._keys(queue), chunk)

    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        """Note running tasks that the index does not know, as leased to nobody."""
        with self._translating_errors():
            for chunk in chunks(entries, MAX_TASKS_PER_SCRIPT):
                scripts.restore(
                    self._retrying_client,
                    self._keys(queue),
                    chunk,
                    self._sign(queue),
                    lease_seconds=lease_seconds,
                )

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        """Up to `limit` leases (1,000 at most) whose time has passed, oldest first."""
        with self._translating_errors():
            while True:
                found = scripts.expired_leases(
                    self._retrying_client, self._keys(queue), limit=min(limit, MAX_TASKS_PER_SCRIPT)
                )
                # Those that are none of ours are gone now, and hid others.
                if (leases := self._signed(queue, found)) or not found:
                    return leases

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        """The leases of one worker."""
        with self._translating_errors():
            return self._signed(
                queue, scripts.worker_leases(self._retrying_client, self._keys(queue), worker=worker)
            )

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Take tasks out, whatever their state. Returns the workers that held leases on any of them."""
        holders: dict[UUID, str] = {}
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                # Never repeated: the second reply would name no holder.
                holders |= scripts.remove(self._single_try_client, self._keys(queue), chunk)
        return holders

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Those of `agent_ids` that the index does not know."""
        unknown: list[UUID] = []
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                unknown += scripts.unknown_tasks(self._retrying_client, self._keys(queue), chunk)
        return unknown

    def depth(self, queue: str) -> Depth:
        """Count the tasks of a queue."""
        with self._translating_errors():
            return scripts.depth(self._retrying_client, self._keys(queue))

    def is_intact(self, queue: str) -> bool:
        """False if the server was emptied, restarted or replaced since `mark_intact`.

        A restarted server may have come back without its last seconds, and a replica that took over may lack
        the last writes: both look whole and are not.
        """
        with self._translating_errors():
            mark = self._retrying_client.get(self._queue_key(queue, "intact"))
            return mark is not None and mark == self._run_id()

    def mark_intact(self, queue: str) -> None:
        """Note that the index of a queue is whole."""
        with self._translating_errors():
            self._retrying_client.set(self._queue_key(queue, "intact"), self._run_id())

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        """Take or keep a leadership for `seconds`; False if another owner holds it."""
        with self._translating_errors():
            return scripts.acquire_leadership(
                self._retrying_client, self._leader_key(role), owner=owner, seconds=seconds
            )

    def release_leadership(self, role: str, owner: str) -> None:
        """Give a leadership up, if held by `owner`."""
        with self._translating_errors():
            scripts.release_leadership(self._retrying_client, self._leader_key(role), owner=owner)

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        """Take amounts of token buckets, all of them or none; see `StateBackend.reserve`."""
        with self._translating_errors():
            # Never repeated: it might take twice.
            return scripts.reserve(
                self._single_try_client, self._bucket_keys(demands), demands, max_wait=max_wait
            )

    def settle(self, demands: Sequence[Demand]) -> None:
        """Correct what was reserved, at once."""
        with self._translating_errors():
            scripts.reserve(self._single_try_client, self._bucket_keys(demands), demands, max_wait=None)

    def _sign(self, queue: str) -> Sign:
        return lambda agent_id: self._signer.sign(ENTRY, queue, agent_id.hex)

    def _signed(self, queue: str, found: Sequence[SignedLease]) -> list[Lease]:
        """Leases of entries with a valid signature; the others leave the queue, and the reconciler brings back real tasks."""
        if not self._signer.active:
            return [lease for lease, _ in found]
        leases: list[Lease] = []
        dropped: list[Lease] = []
        for lease, signature in found:
            mine = self._signer.verify(signature.decode("ascii", "replace"), ENTRY, queue, lease.agent_id.hex)
            (leases if mine else dropped).append(lease)
        if dropped:
            scripts.finish(self._retrying_client, self._keys(queue), dropped)
            self._signer.note_dropped(len(dropped), f"entries of queue {queue}")
        return leases

    def _keys(self, queue: str) -> QueueKeys:
        base = f"{{{self._prefix}:{queue}}}:"
        return QueueKeys(*(base + name for name in QueueKeys._fields))

    def _leader_key(self, role: str) -> str:
        return f"{self._prefix}:leader:{role}"

    def _bucket_keys(self, demands: Sequence[Demand]) -> list[str]:
        return [f"{{{self._prefix}:bucket}}:{demand.name}" for demand in demands]

    def _run_id(self) -> bytes:
        """What changes with each start of the server; constant where it may not be asked."""
        try:
            facts: dict[str, Any] = self._retrying_client.info("server")
        except redis.exceptions.NoPermissionError:
            return b"unknown"
        return str(facts.get("run_id", "unknown")).encode()

    def _refuse_transaction(self, transaction: object) -> None:
        if transaction is not None:
            raise UsageError(
                "The Redis state backend cannot join a database transaction; call it without transaction=."
            )

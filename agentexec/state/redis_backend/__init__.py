"""State backend on Redis or Valkey: the fastest, which wakes workers in well under a millisecond.

Keys start with `AGENTEXEC_KEY_PREFIX`. Those of a queue share a hash slot: `{prefix:queue}:high`, `:low`, `:delayed`,
`:entry`, `:leases`, `:wake`, `:fair`, `:turn_high`, `:turn_low`, `:flow` (see `lua/queue.lua`), `:groups`, `:held`, `:line`,
`:parked` (see `lua/groups.lua`), `:intact`, `:watch:<id>`, `:events:<id>` (a stream) and `:follow:<id>` (mailboxes, scored by
the time at which they stop following). The others are `prefix:mail:<name>`, `prefix:leader:<role>`
and `{prefix:bucket}:<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import redis

from agentexec.db.chunks import chunks
from agentexec.errors import UsageError
from agentexec.llm.rate_limits import Demand
from agentexec.state.answers import Inspection, Waiting
from agentexec.state.backend import PROTOCOL_VERSION, ClaimResult, Comparison, Depth, LostLeases, TaskPage
from agentexec.state.groups import NO_LIMITS
from agentexec.state.redis_backend import scripts
from agentexec.state.redis_backend.cluster import node_of, primaries_of
from agentexec.state.redis_backend.connection import Connections, clamp_block_timeout
from agentexec.state.redis_backend.messages import RedisMessages
from agentexec.state.redis_backend.preflight import check_server, read_info
from agentexec.state.redis_backend.refusals import RefusalError
from agentexec.state.redis_backend.script import MAX_ENTRIES_PER_SCRIPT, MAX_TASKS_PER_SCRIPT, QueueKeys
from agentexec.state.redis_backend.scripts import Sign, SignedLease
from agentexec.state.redis_backend.signing import Signer
from agentexec.task import Entry, Lease

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from agentexec.config import Settings

ENTRY = "entry"


def create(settings: Settings, engine: Engine) -> RedisBackend:
    """Return the backend of `AGENTEXEC_REDIS_URL`, which connects on first use. Raises UsageError for an unusable URL."""
    if not settings.redis_url:
        raise UsageError(
            "The Redis state backend needs a server: set AGENTEXEC_REDIS_URL, for example to redis://localhost:6379/0."
        )
    return RedisBackend(settings.redis_url, settings.key_prefix, settings.signing_keys, settings.queue_name)


class RedisBackend(RedisMessages):
    """State backend for a URL; see `StateBackend`. Each call is one round trip for up to 1,000 tasks, or 500 entries."""

    protocol_version = PROTOCOL_VERSION
    transactional = False

    def __init__(
        self, url: str, prefix: str, signing_keys: Sequence[str] = (), queue: str = "default"
    ) -> None:
        self._queue = queue
        super().__init__(Connections(url), prefix, Signer(signing_keys, prefix))

    def describe(self) -> str:
        """Return the server's version, memory and eviction policy, for display. Raises UnavailableError."""
        with self._translating_errors():
            servers = primaries_of(self._retrying_client)
            info = read_info(servers[0])
        shards = f"cluster of {len(servers)} shards, the first " if len(servers) > 1 else ""
        if not info:
            return f"{shards}which may not be asked"
        name = "Valkey" if "valkey_version" in info else "Redis"
        version = info.get("valkey_version") or info.get("redis_version")
        memory = info.get("used_memory_human", "?")
        return f"{shards}{name} {version}, {memory} used, {info.get('maxmemory_policy', 'unknown')}"

    def ping(self) -> None:
        """Call everything that the backend calls, on scratch keys.

        Raises UsageError for a server that somebody must change, UnavailableError for one that may recover.
        """
        try:
            with self._translating_errors():
                check_server(self._retrying_client, self._connections.safe_url, self._prefix, self._queue)
        except RefusalError as error:
            if error.lasting:
                raise UsageError(str(error)) from error
            raise

    def close(self) -> None:
        """Close connections, also those on which another thread waits. A later call connects again."""
        self._connections.close()

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        """Put tasks on a queue, and wake as many workers. Tasks that the index knows are left as they are."""
        self._refuse_transaction(transaction)
        with self._translating_errors():
            for chunk in chunks(entries, MAX_ENTRIES_PER_SCRIPT):
                scripts.push(self._retrying_client, self._keys(queue), chunk, self._sign(queue))

    def wake(self, queue: str, count: int) -> None:
        """Wake up to `count` workers that wait on a queue."""
        with self._translating_errors():
            scripts.wake(self._retrying_client, self._keys(queue), count)

    def claim(
        self,
        queue: str,
        worker: str,
        *,
        limit: int,
        low_quota: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> ClaimResult:
        """Lease up to `limit` ready tasks, 1,000 at most."""
        with self._translating_errors():
            # Never repeated: if the reply is lost, nobody works on the claimed tasks until their leases expire.
            claimed, next_due = scripts.claim(
                self._single_try_client,
                self._keys(queue),
                worker=worker,
                limit=min(limit, MAX_TASKS_PER_SCRIPT),
                low_quota=low_quota,
                lease_seconds=lease_seconds,
                limits=limits,
            )
            return ClaimResult(self._signed(queue, claimed), next_due)

    def wait(self, queue: str | Sequence[str], timeout: float) -> None:
        """Wait until a task may be ready, for `timeout` seconds, 10 at most."""
        if timeout > 0:
            keys = [self._keys(name) for name in ([queue] if isinstance(queue, str) else queue)]
            with self._translating_errors():
                scripts.wait(self._single_try_client, keys, clamp_block_timeout(timeout))

    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        """Extend leases. A lease that expired is taken up again, unless another worker has claimed the task."""
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
        """Forget finished tasks, except those that a higher epoch holds."""
        self._refuse_transaction(transaction)
        with self._translating_errors():
            for chunk in chunks(leases, MAX_TASKS_PER_SCRIPT):
                scripts.finish(self._retrying_client, self._keys(queue), chunk)

    def finish_and_notify(self, queue: str, leases: Sequence[Lease]) -> None:
        """Do what `finish` and `notify_done` do, in a round trip less: somebody may be waiting for the result."""
        with self._translating_errors():
            for chunk in chunks(leases, MAX_TASKS_PER_SCRIPT):
                agent_ids = [lease.agent_id for lease in chunk]
                watch_keys = [self._watch_key(queue, agent_id) for agent_id in agent_ids]
                # Repeated if the reply is lost: the watchers look into the record by themselves, a few seconds later.
                watchers = scripts.finish_watched(self._retrying_client, self._keys(queue), chunk, watch_keys)
                if watchers is None:
                    self.finish(queue, chunk)
                    self.notify_done(queue, agent_ids)
                else:
                    self._tell(agent_ids, watchers)

    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        """Give a task back, to the front of its priority or for `delay` seconds. False if the lease is lost."""
        with self._translating_errors():
            # Never repeated: after the first call the lease is gone, and the second would report it as lost.
            return scripts.release(self._single_try_client, self._keys(queue), lease, delay=delay)

    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Make delayed tasks ready now, and wake workers. Other tasks stay as they are."""
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                scripts.make_ready(self._retrying_client, self._keys(queue), chunk)

    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        """Add running tasks that the index does not know, leased to nobody."""
        with self._translating_errors():
            for chunk in chunks(entries, MAX_ENTRIES_PER_SCRIPT):
                scripts.restore(
                    self._retrying_client,
                    self._keys(queue),
                    chunk,
                    self._sign(queue),
                    lease_seconds=lease_seconds,
                )

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        """Return up to `limit` leases (1,000 at most) that have expired, the oldest first."""
        with self._translating_errors():
            while True:
                found, removed = scripts.expired_leases(
                    self._retrying_client, self._keys(queue), limit=min(limit, MAX_TASKS_PER_SCRIPT)
                )
                # Entries without a valid signature are removed now, and may have hidden others too.
                if (leases := self._signed(queue, found)) or not (found or removed):
                    return leases

    def inspect(self, queue: str, limit: int) -> Inspection:
        """Return what `is_intact` and `expired_leases` do, in one round trip: a worker asks each second."""
        with self._translating_errors():
            limit = min(limit, MAX_TASKS_PER_SCRIPT)
            found = scripts.inspect(self._retrying_client, self._keys(queue), limit=limit)
            if found is None:
                return Inspection(self.is_intact(queue), self.expired_leases(queue, limit))
            mark, run_id, expired, removed = found
            leases = self._signed(queue, expired)
            if not leases and (expired or removed):
                leases = self.expired_leases(queue, limit)
            return Inspection(mark is not None and mark == (run_id or self._run_id(queue)), leases)

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        """Return the leases of a worker."""
        with self._translating_errors():
            return self._signed(
                queue, scripts.worker_leases(self._retrying_client, self._keys(queue), worker=worker)
            )

    def holder(self, queue: str, agent_id: UUID) -> str | None:
        """Return the worker that holds the lease of a task; None if nobody does. Reads only, for display."""
        with self._translating_errors():
            entry = cast("bytes | None", self._single_try_client.hget(self._keys(queue).entry, agent_id.hex))
        return (entry or b"").partition(b" ")[2].decode("utf-8", "replace") or None

    def waiting_for(self, queue: str, agent_id: UUID) -> Waiting | None:
        """Return the group for which a task waits, None if it does not. Reads only, for display."""
        with self._translating_errors():
            return scripts.waiting_for(self._retrying_client, self._keys(queue), agent_id)

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Remove tasks, whatever their state, and return the worker of each that was leased."""
        holders: dict[UUID, str] = {}
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                # Never repeated: the second reply would name no worker.
                holders |= scripts.remove(self._single_try_client, self._keys(queue), chunk)
        return holders

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Return those of `agent_ids` that the index does not know."""
        unknown: list[UUID] = []
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                unknown += scripts.unknown_tasks(self._retrying_client, self._keys(queue), chunk)
        return unknown

    def compare(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> Comparison:
        """Compare what the index knows about tasks with what the record says."""
        found = Comparison([], [])
        with self._translating_errors():
            for chunk in chunks(entries, MAX_ENTRIES_PER_SCRIPT):
                part = scripts.compare(self._retrying_client, self._keys(queue), chunk, lease_seconds)
                found.missing.extend(part.missing)
                found.wrong.extend(part.wrong)
        return found

    def list_tasks(self, queue: str, cursor: str) -> TaskPage:
        """Return some tasks that the index knows, and remove what cannot belong to a task."""
        with self._translating_errors():
            return scripts.list_tasks(self._retrying_client, self._keys(queue), cursor)

    def depth(self, queue: str) -> Depth:
        """Count the tasks of a queue."""
        with self._translating_errors():
            return scripts.depth(self._retrying_client, self._keys(queue))

    def is_intact(self, queue: str) -> bool:
        """Return False if the server was emptied, restarted or replaced since `mark_intact`.

        A restarted server may lack its last seconds, and a replica that took over may lack the last writes: both look
        complete and are not.
        """
        with self._translating_errors():
            mark, run_id = scripts.intact(self._retrying_client, self._keys(queue).intact)
            return mark is not None and mark == (run_id or self._run_id(queue))

    def mark_intact(self, queue: str) -> None:
        """Note that the index of a queue is complete."""
        with self._translating_errors():
            scripts.mark_intact(self._retrying_client, self._keys(queue), self._run_id(queue).decode())

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        """Acquire or keep a leadership for `seconds`; False if another owner holds it."""
        with self._translating_errors():
            return scripts.acquire_leadership(
                self._retrying_client, self._leader_key(role), owner=owner, seconds=seconds
            )

    def release_leadership(self, role: str, owner: str) -> None:
        """Give up a leadership if `owner` holds it."""
        with self._translating_errors():
            scripts.release_leadership(self._retrying_client, self._leader_key(role), owner=owner)

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        """Take amounts from token buckets, all of them or none; see `StateBackend.reserve`."""
        with self._translating_errors():
            # Never repeated: the amounts might be taken twice.
            return scripts.reserve(
                self._single_try_client, self._bucket_keys(demands), demands, max_wait=max_wait
            )

    def settle(self, demands: Sequence[Demand]) -> None:
        """Correct earlier reservations, without a wait."""
        with self._translating_errors():
            scripts.reserve(self._single_try_client, self._bucket_keys(demands), demands, max_wait=None)

    def _sign(self, queue: str) -> Sign:
        return lambda agent_id: self._signer.sign(ENTRY, queue, agent_id.hex)

    def _signed(self, queue: str, found: Sequence[SignedLease]) -> list[Lease]:
        """Return the leases of entries with a valid signature. Others are removed, and the reconciler restores real tasks."""
        if not self._signer.active:
            return [lease for lease, _ in found]
        leases: list[Lease] = []
        dropped: list[Lease] = []
        for lease, signature in found:
            valid = self._signer.verify(
                signature.decode("ascii", "replace"), ENTRY, queue, lease.agent_id.hex
            )
            (leases if valid else dropped).append(lease)
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

    def _run_id(self, queue: str) -> bytes:
        """Return an id that changes with each start of the server of a queue; constant where the user may not read it."""
        try:
            info: dict[str, Any] = node_of(self._retrying_client, self._keys(queue).intact).info("server")
        except redis.exceptions.NoPermissionError:
            return b"unknown"
        return str(info.get("run_id", "unknown")).encode()

    def _refuse_transaction(self, transaction: object) -> None:
        if transaction is not None:
            raise UsageError(
                "The Redis state backend cannot join a database transaction; call it without transaction=."
            )

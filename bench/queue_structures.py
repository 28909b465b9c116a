"""Comparison of Redis structures for the queue: lists, sorted sets, or a stream with a consumer group.

Each candidate does the whole job that agentexec needs, in one script per step: an idempotent push, a claim that
raises the epoch of the task and notes a lease, and an acknowledgment that is refused if a higher epoch holds the task.
Run `python bench/queue_structures.py --url redis://127.0.0.1:6379/9` against a database that may be emptied.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import redis

BATCHES = (1, 10, 100)
LEASE_MS = 30_000

PUSH_LISTS = """
local fresh = {}
for i, epoch in ipairs(redis.call('HMGET', KEYS[2], unpack(ARGV))) do
  if not epoch then fresh[#fresh + 1] = ARGV[i] end
end
if #fresh == 0 then return 0 end
local marks = {}
for i, id in ipairs(fresh) do marks[2 * i - 1] = id; marks[2 * i] = 'rh0' end
redis.call('HSET', KEYS[2], unpack(marks))
redis.call('RPUSH', KEYS[1], unpack(fresh))
redis.call('RPUSH', KEYS[4], '1')
redis.call('LTRIM', KEYS[4], -64, -1)
return #fresh
"""
CLAIM_LISTS = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end
local time = redis.call('TIME')
local lapse = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
local marks, leases, claimed = {}, {}, {}
for i, mark in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  if mark and string.sub(mark, 1, 1) == 'r' then
    local epoch = tonumber(string.match(mark, '%d+')) + 1
    marks[#marks + 1] = ids[i]; marks[#marks + 1] = 'xh' .. epoch .. ' ' .. ARGV[2]
    leases[#leases + 1] = lapse; leases[#leases + 1] = ids[i]
    claimed[#claimed + 1] = ids[i]; claimed[#claimed + 1] = epoch
  end
end
redis.call('HSET', KEYS[2], unpack(marks))
redis.call('ZADD', KEYS[3], unpack(leases))
return claimed
"""
FINISH = """
local ids, gone = {}, {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
for i, mark in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  if mark and tonumber(string.match(mark, '%d+')) <= tonumber(ARGV[2 * i]) then gone[#gone + 1] = ids[i] end
end
if #gone == 0 then return 0 end
redis.call('HDEL', KEYS[2], unpack(gone))
redis.call('ZREM', KEYS[3], unpack(gone))
return #gone
"""
PUSH_SETS = PUSH_LISTS.replace(
    "redis.call('RPUSH', KEYS[1], unpack(fresh))",
    """local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] or 0
local places = {}
for i, id in ipairs(fresh) do places[2 * i - 1] = last + i; places[2 * i] = id end
redis.call('ZADD', KEYS[1], unpack(places))""",
)
CLAIM_SETS = CLAIM_LISTS.replace(
    """local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end""",
    """local popped = redis.call('ZPOPMIN', KEYS[1], ARGV[1])
if #popped == 0 then return {} end
local ids = {}
for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end""",
)
PUSH_STREAM = """
local fresh = 0
for _, id in ipairs(ARGV) do
  if redis.call('HSETNX', KEYS[2], id, 0) == 1 then
    redis.call('XADD', KEYS[1], '*', 't', id)
    fresh = fresh + 1
  end
end
return fresh
"""
EPOCHS_STREAM = """
local epochs = {}
for i, id in ipairs(ARGV) do epochs[i] = redis.call('HINCRBY', KEYS[2], id, 1) end
return epochs
"""
CLAIM_STREAM = """
local reply = redis.call('XREADGROUP', 'GROUP', 'g', ARGV[2], 'COUNT', ARGV[1], 'STREAMS', KEYS[1], '>')
if not reply then return {} end
local claimed = {}
for _, entry in ipairs(reply[1][2]) do
  local id = entry[2][2]
  claimed[#claimed + 1] = entry[1] .. id
  claimed[#claimed + 1] = redis.call('HINCRBY', KEYS[2], id, 1)
end
return claimed
"""
FINISH_STREAM = """
local ids, entries, gone, done = {}, {}, {}, {}
for i = 1, #ARGV, 2 do
  ids[#ids + 1] = string.sub(ARGV[i], -32)
  entries[#entries + 1] = string.sub(ARGV[i], 1, -33)
end
for i, epoch in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  if epoch and tonumber(epoch) <= tonumber(ARGV[2 * i]) then gone[#gone + 1] = ids[i]; done[#done + 1] = entries[i] end
end
if #gone == 0 then return 0 end
redis.call('HDEL', KEYS[2], unpack(gone))
redis.call('XACK', KEYS[1], 'g', unpack(done))
redis.call('XDEL', KEYS[1], unpack(done))
return #gone
"""

KEYS = ("{bench}:queue", "{bench}:entry", "{bench}:leases", "{bench}:wake")

Leases = list[Any]
"""Ids and epochs alternately, as the scripts return and take them."""


class Candidate(Protocol):
    """Structure that can hold the queue."""

    name: str

    def push(self, ids: list[str]) -> None: ...
    def claim(self, limit: int) -> Leases: ...
    def wait(self) -> Leases: ...
    def finish(self, leases: Leases) -> None: ...


class Scripted:
    """Queue in lists or sorted sets: three scripts, and a list of tokens that idle workers block on."""

    def __init__(self, client: redis.Redis, name: str, push: str, claim: str) -> None:
        self.name = name
        self._client = client
        self._push = client.script_load(push)
        self._claim = client.script_load(claim)
        self._finish = client.script_load(FINISH)

    def push(self, ids: list[str]) -> None:
        self._client.evalsha(self._push, 4, *KEYS, *ids)

    def claim(self, limit: int) -> Leases:
        return self._client.evalsha(self._claim, 4, *KEYS, limit, "worker", LEASE_MS)

    def wait(self) -> Leases:
        self._client.blpop([KEYS[3]], timeout=5)
        return self.claim(1)

    def finish(self, leases: Leases) -> None:
        self._client.evalsha(self._finish, 4, *KEYS, *leases)


class Streamed:
    """Queue in a stream, whose consumer group keeps the pending entries.

    Epochs still need a hash, because only XPENDING shows the deliveries that a group counts.
    """

    name = "stream"

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._push = client.script_load(PUSH_STREAM)
        self._claim = client.script_load(CLAIM_STREAM)
        self._epochs = client.script_load(EPOCHS_STREAM)
        self._finish = client.script_load(FINISH_STREAM)
        try:
            client.xgroup_create(KEYS[0], "g", id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def push(self, ids: list[str]) -> None:
        self._client.evalsha(self._push, 2, *KEYS[:2], *ids)

    def claim(self, limit: int) -> Leases:
        return self._client.evalsha(self._claim, 2, *KEYS[:2], limit, "worker")

    def wait(self) -> Leases:
        reply = self._client.execute_command(
            "XREADGROUP", "GROUP", "g", "worker", "COUNT", 1, "BLOCK", 5000, "STREAMS", KEYS[0], ">"
        )
        if not reply:
            return []
        entries = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
        entry, fields = entries[0]
        task = fields[b"t"]
        epochs = self._client.evalsha(self._epochs, 2, *KEYS[:2], task)
        return [entry + task, epochs[0]]

    def finish(self, leases: Leases) -> None:
        self._client.evalsha(self._finish, 2, *KEYS[:2], *leases)


CANDIDATES: dict[str, Callable[[redis.Redis], Candidate]] = {
    "lists": lambda client: Scripted(client, "lists", PUSH_LISTS, CLAIM_LISTS),
    "sorted sets": lambda client: Scripted(client, "sorted sets", PUSH_SETS, CLAIM_SETS),
    "stream": Streamed,
}


class Row(NamedTuple):
    """Throughput of a candidate at a batch size, in tasks per second."""

    structure: str
    depth: int
    batch: int
    push_per_s: int
    claim_per_s: int
    finish_per_s: int
    whole_per_s: int


class Extra(NamedTuple):
    """Pick-up times of a blocked worker in another process (from before the push to the lease), and memory."""

    structure: str
    pickup_p50_us: int
    pickup_p99_us: int
    bytes_per_waiting_task: int


def measure(candidate: Candidate, depth: int, batch: int, tasks: int) -> Row:
    """Time push, claim and finish of `tasks` tasks on top of `depth` tasks that stay waiting."""
    ids = [uuid4().hex for _ in range(tasks)]
    chunks = [ids[i : i + batch] for i in range(0, tasks, batch)]
    started = time.perf_counter()
    for chunk in chunks:
        candidate.push(chunk)
    pushed = time.perf_counter()
    leases = [candidate.claim(batch) for _ in chunks]
    claimed = time.perf_counter()
    for lease in leases:
        candidate.finish(lease)
    finished = time.perf_counter()
    if sum(map(len, leases)) != 2 * tasks:
        raise RuntimeError(f"{candidate.name}: {tasks} tasks expected, {sum(map(len, leases)) // 2} claimed")
    return Row(
        candidate.name,
        depth,
        batch,
        round(tasks / (pushed - started)),
        round(tasks / (claimed - pushed)),
        round(tasks / (finished - claimed)),
        round(tasks / (finished - started)),
    )


def _pick_up(url: str, name: str, count: int, times: Any) -> None:
    """Take `count` tasks as a blocked worker in a process of its own, and report when each was leased."""
    candidate = CANDIDATES[name](redis.Redis.from_url(url, socket_timeout=30))
    seen = {}
    while len(seen) < count:
        leases = candidate.wait()
        if leases:
            seen[leases[0][-32:].decode()] = time.monotonic_ns()
            candidate.finish(leases)
    times.send(seen)


def pick_up(url: str, name: str, count: int) -> tuple[int, int]:
    """Return median and 99th percentile of the pick-up times in microseconds."""
    candidate = CANDIDATES[name](redis.Redis.from_url(url))
    reader, writer = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.Process(target=_pick_up, args=(url, name, count, writer))
    worker.start()
    time.sleep(0.5)
    pushed = {}
    for _ in range(count):
        task = uuid4().hex
        pushed[task] = time.monotonic_ns()
        candidate.push([task])
        time.sleep(0.003)  # long enough that the worker blocks again
    seen = reader.recv()
    worker.join()
    spans = sorted((seen[task] - pushed[task]) / 1000 for task in pushed)
    return round(statistics.median(spans)), round(spans[int(len(spans) * 0.99)])


def fill(client: redis.Redis, candidate: Candidate, depth: int) -> int:
    """Put `depth` tasks on the queue and return the bytes that each of them takes."""
    before = client.info("memory")["used_memory"]
    for _ in range(depth // 1000):
        candidate.push([uuid4().hex for _ in range(1000)])
    return (client.info("memory")["used_memory"] - before) // max(depth, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="redis://127.0.0.1:6379/9", help="a database that may be EMPTIED")
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks for each figure")
    parser.add_argument(
        "--depth", type=int, default=100_000, help="tasks that wait on the queue, besides a run with none"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()

    client = redis.Redis.from_url(options.url)
    rows: list[Row] = []
    extras: list[Extra] = []
    for name, make in CANDIDATES.items():
        client.flushdb()
        candidate = make(client)
        rows += [measure(candidate, 0, batch, options.tasks) for batch in BATCHES]
        client.flushdb()
        p50, p99 = pick_up(options.url, name, min(options.tasks, 1000))
        client.flushdb()
        candidate = make(client)
        size = fill(client, candidate, options.depth)
        rows += [measure(candidate, options.depth, batch, options.tasks) for batch in BATCHES]
        extras.append(Extra(name, p50, p99, size))
    client.flushdb()
    if options.json:
        print(
            json.dumps(
                {"throughput": [row._asdict() for row in rows], "other": [row._asdict() for row in extras]}
            )
        )
        return
    for table in (rows, extras):
        print("| " + " | ".join(table[0]._fields) + " |")
        print("|" + " --- |" * len(table[0]._fields))
        for row in table:
            print("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) + " |")
        print()


if __name__ == "__main__":
    main()

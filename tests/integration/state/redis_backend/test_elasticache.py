"""ElastiCache Serverless cannot run here: our calls stay within what AWS documents of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.state.redis_backend import RedisBackend, create
from agentexec.task import Entry, new_agent_id
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim
from tests.redis_clusters import LEAST_RULES

Q = "queue"

MOST_ARGUMENTS = 3_999
"""Arguments of one request, by https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/RedisConfiguration.html."""

SUPPORTED = frozenset(
    re.findall(
        r"\S+",
        """
    auth bitcount bitfield bitfield_ro bitop bitpos blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin
    client|getname client|reply client|setname cluster|info cluster|keyslot cluster|myid cluster|nodes cluster|shards
    cluster|slots command copy dbsize decr decrby del discard dump echo eval eval_ro evalsha evalsha_ro exec exists expire
    expireat expiretime get getbit getdel getex getrange getset hdel hello hexists hget hgetall hincrby hincrbyfloat hkeys
    hlen hmget hmset hrandfield hscan hset hsetnx hstrlen hvals incr incrby incrbyfloat info lcs lindex linsert llen lmove
    lmpop lpop lpos lpush lpushx lrange lrem lset ltrim mget mset msetnx multi persist pexpire pexpireat pexpiretime ping
    psetex pttl publish quit randomkey readonly readwrite rename renamenx reset restore role rpop rpoplpush rpush rpushx
    sadd scan scard script|exists script|flush script|load sdiff sdiffstore select set setbit setex setnx setrange sinter
    sintercard sinterstore sismember smembers smismember smove sort sort_ro spop spublish srandmember srem ssubscribe
    strlen subscribe substr sunion sunionstore sunsubscribe time touch ttl type unlink unsubscribe xack xadd xautoclaim
    xclaim xdel xlen xpending xrange xread xreadgroup xrevrange xtrim zadd zcard zcount zdiff zdiffstore zincrby zinter
    zintercard zinterstore zlexcount zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore
    zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore
    zrevrank zscan zscore zunion zunionstore
    """,
    )
)
"""Commands, by https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/SupportedCommands.html."""

BESIDE = {"asking", "client"}
"""The only node has all slots, so it redirects nobody; and redis-py goes on if its name for itself is refused."""

SCRIPT = re.compile(rb"EVALSHA\r\n\$40\r\n\w{40}\r\n\$\d\r\n(\d+)\r\n")
"""Start of a request that runs a script, and the number of its keys."""


@pytest.fixture
def backend(valkey_url: str) -> Iterator[RedisBackend]:
    backend = create(Settings(redis_url=valkey_url), create_engine("sqlite://"))
    yield backend
    backend.close()


def test_the_permissions_that_we_ask_for_are_commands_that_it_has() -> None:
    commands = {rule.removeprefix("+") for rule in LEAST_RULES if rule.startswith("+")}
    assert commands - SUPPORTED == {"asking"}


def test_no_request_has_more_arguments_than_it_takes(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a script run without a key, which it refuses too."""
    sent: list[tuple[int, str]] = []
    scripts: list[int] = []
    send = redis.connection.Connection.send_packed_command

    def send_and_note(self: redis.connection.Connection, command: object, check_health: bool = True) -> None:
        parts = command if isinstance(command, list | tuple) else [command]
        packed = b"".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
        requests = re.findall(rb"\*(\d+)\r\n\$\d+\r\n(\w+)\r\n", packed)
        sent.extend((int(number), name.decode().lower()) for number, name in requests)
        scripts.extend(int(keys) for keys in re.findall(SCRIPT, packed))
        send(self, command, check_health)

    monkeypatch.setattr(redis.connection.Connection, "send_packed_command", send_and_note)
    entries = [Entry(new_agent_id(), groups=("lock:one", "limit:two")) for _ in range(1_000)]
    agent_ids = [entry.agent_id for entry in entries]
    backend.ping()
    backend.push(Q, entries)
    backend.compare(Q, entries, LONG_LEASE)
    backend.unknown_tasks(Q, agent_ids)
    backend.make_ready(Q, agent_ids)
    backend.remove(Q, agent_ids)
    backend.restore(Q, entries, LONG_LEASE)
    backend.remove(Q, agent_ids)
    backend.push(Q, [Entry(agent_id) for agent_id in agent_ids])
    leases = claim(backend, Q, len(entries))
    backend.renew(Q, "worker", leases, LONG_LEASE)
    backend.watch(Q, agent_ids, "mailbox")
    backend.follow(Q, agent_ids, "mailbox")
    backend.followed_tasks(Q, agent_ids)
    backend.publish(Q, {agent_ids[0]: ["text"] * 1_000})
    backend.read_events(Q, dict.fromkeys(agent_ids, 0))
    backend.finish_and_notify(Q, leases)
    backend.notify_done(Q, agent_ids)
    backend.finish(Q, leases)
    assert len(backend.receive("mailbox", 1)) >= len(entries)
    assert max(sent)[0] <= MOST_ARGUMENTS
    assert len(scripts) > 10
    assert min(scripts) >= 1
    assert {name for _, name in sent} - SUPPORTED - {"cluster"} <= BESIDE

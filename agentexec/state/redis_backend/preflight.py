"""Checks of a server before the first task: everything that agentexec will call is called once, on scratch keys.

All of it is one round trip to each server. What is refused is named in one sentence, with the ACL rules that are missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from agentexec.errors import UsageError
from agentexec.state.redis_backend.cluster import node_of, place_of, primaries_of
from agentexec.state.redis_backend.refusals import NODE, RefusalError, code_of, name_of, noted, translate
from agentexec.state.redis_backend.script import Script

OLDEST_SERVER = (6, 2)
"""First release in which LPOP takes a count, which `receive` needs."""

SCRATCH = "preflight"
"""Last part of the scratch keys' names."""

PROBE = Script("preflight")
_UNRELATED = frozenset({"NOSCRIPT", "OOM", "WRONGTYPE"})
"""Codes that say nothing about a command: EVALSHA after a refused EVAL, a full server, another worker's scratch value."""


class ScratchKey(NamedTuple):
    """Key that is empty before and after the checks, and the ACL pattern of the keys of its kind."""

    name: str
    pattern: str
    blocks: bool
    """True if keys of its kind are also read and written without a script."""


class Reply(NamedTuple):
    """Answer to one command."""

    command: str
    key: ScratchKey
    answer: Any


def scratch_keys(prefix: str, queue: str) -> list[ScratchKey]:
    """Return one key of each kind that the backend uses."""
    plain, tagged = f"{prefix}:*", f"{{{prefix}:*"
    return [
        ScratchKey(f"{{{prefix}:{queue}}}:{SCRATCH}", tagged, blocks=True),
        ScratchKey(f"{prefix}:mail:{SCRATCH}", plain, blocks=True),
        ScratchKey(f"{prefix}:leader:{SCRATCH}", plain, blocks=False),
        ScratchKey(f"{{{prefix}:bucket}}:{SCRATCH}", tagged, blocks=False),
    ]


def check_server(client: redis.Redis, server: str, prefix: str, queue: str) -> None:
    """Call everything that the backend calls.

    Raises UsageError for a server that somebody must change, UnavailableError for one that may recover, and what the client
    raises. `server` is the URL without secrets.
    """
    try:
        for primary in primaries_of(client):
            check_info(_read_info(primary, client), _name(primary, client, server))
        _check_calls(client, server, prefix, queue)
    except UnicodeError:  # of the host's name
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise redis.exceptions.InvalidResponse("an answer has another form") from error


def _name(primary: redis.Redis, client: redis.Redis, server: str) -> str:
    """Return the name of a primary for messages: with its own address if it is one of several."""
    return server if primary is client else name_of("{}:{}".format(*place_of(primary)), server)


def _read_info(primary: redis.Redis, client: redis.Redis) -> dict[str, Any]:
    try:
        return read_info(primary)
    except (redis.RedisError, OSError) as error:
        if primary is not client:
            noted(error, NODE, *place_of(primary))
        raise


def read_info(client: redis.Redis) -> dict[str, Any]:
    """Return the server's facts; none if the user may not ask."""
    try:
        return client.info("everything")
    except redis.exceptions.NoPermissionError:
        return {}


def check_info(info: dict[str, Any], server: str) -> None:
    """Check what the server says about itself. Raises UsageError, RefusalError."""
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        raise UsageError(
            f"Redis at {server} is a Sentinel, which keeps no data; set AGENTEXEC_REDIS_URL to the primary that it watches, "
            "or write redis+sentinel://host:26379/NAME, with the name under which it knows the primary."
        )
    version = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    if version and (int(version[1]), int(version[2])) < OLDEST_SERVER:
        raise UsageError(f"Redis at {server} is {info['redis_version']}; agentexec needs 6.2 or newer.")
    policy = str(info.get("maxmemory_policy", ""))
    # The keys of a queue never expire, so the volatile policies do not evict them.
    if info.get("maxmemory") and policy.startswith("allkeys"):
        raise UsageError(
            f"Redis at {server} would evict queued tasks when it is full (maxmemory-policy {policy}); set "
            "maxmemory-policy to noeviction."
        )
    if info.get("role") == "slave":
        # What is written to a replica that allows it vanishes with the next synchronization.
        kind = "read-only replica" if info.get("slave_read_only", 1) else "replica"
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        raise RefusalError(
            f"Redis at {server} cannot be used: it is a {kind}; set AGENTEXEC_REDIS_URL to its primary, {primary}.",
            lasting=False,
        )


def _check_calls(client: redis.Redis, server: str, prefix: str, queue: str) -> None:
    errors = [reply for reply in _call_all(client, prefix, queue) if isinstance(reply.answer, Exception)]
    errors = [reply for reply in errors if code_of(reply.answer) not in _UNRELATED]
    denied = [reply for reply in errors if code_of(reply.answer) == "NOPERM"]
    if denied:
        # Each node has rules of its own.
        names = {_name(node_of(client, reply.key.name), client, server) for reply in denied}
        raise UsageError(
            f"The user of Redis at {names.pop() if len(names) == 1 else server} lacks permissions: add {' '.join(missing_rules(denied))} to its ACL "
            "(the docs' page on Redis has all rules)."
        )
    # A refusal that lasts comes before an outage that passes.
    refusals = sorted((translate(reply.answer, server) for reply in errors), key=_may_pass)
    if refusals:
        raise refusals[0]


def _call_all(client: redis.Redis, prefix: str, queue: str) -> list[Reply]:
    """Make every call in one round trip to each server, and return its replies: those of the scripts' commands too."""
    pipeline = client.pipeline(transaction=False)
    calls: list[tuple[str, ScratchKey]] = []

    def call(command: str, key: ScratchKey, *args: str | float) -> None:
        calls.append((command, key))
        pipeline.execute_command(command, *args)

    keys = scratch_keys(prefix, queue)
    # Sent before the first command on a connection that was idle.
    call("PING", keys[0])
    for key in keys:
        call("EVAL", key, PROBE.source, 1, key.name, 1)
        if key.blocks:
            # The script has left an element, so that the blocking read returns at once.
            call("BLPOP", key, key.name, 0.01)
            call("LPOP", key, key.name, 1)
            call("EXISTS", key, key.name)
            call("SET", key, key.name, "1")
            call("GET", key, key.name)
            call("EXPIRE", key, key.name, 60)
            call("SADD", key, key.name, "member")
            call("XRANGE", key, key.name, "-", "+")
        call("EVALSHA", key, PROBE.digest, 1, key.name)
    answers = pipeline.execute(raise_on_error=False)
    replies = [Reply(command, key, answer) for (command, key), answer in zip(calls, answers, strict=True)]
    return [part for reply in replies for part in _parts(reply)]


def _parts(reply: Reply) -> list[Reply]:
    """Return a reply, and those of the commands that a script has called."""
    if reply.command not in ("EVAL", "EVALSHA") or isinstance(reply.answer, Exception):
        return [reply]
    refused = [part.decode("utf-8", "replace") for part in reply.answer]
    pairs = zip(refused[::2], refused[1::2], strict=True)
    return [Reply(command, reply.key, redis.ResponseError(text)) for command, text in pairs]


def missing_rules(denied: Sequence[Reply]) -> list[str]:
    """Return the ACL rules that allow what was denied: commands first, then keys."""
    commands: dict[str, None] = {}
    patterns: dict[str, None] = {}
    for reply in denied:
        if re.search(r"\bkeys?\b", str(reply.answer)):
            patterns[f"~{reply.key.pattern}"] = None
        else:
            commands[f"+{reply.command.lower()}"] = None
    return [*commands, *patterns]


def _may_pass(error: Exception) -> bool:
    return not (isinstance(error, RefusalError) and error.lasting)

"""Each error of Redis and its client means one thing: it passes, or somebody must change something."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from agentexec.errors import UnavailableError, UsageError
from agentexec.state.redis_backend.preflight import check_info
from agentexec.state.redis_backend.refusals import RefusalError, translate

R = redis.ResponseError
C = redis.ConnectionError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (C("Error 111 connecting to host:6379. Connection refused."), "cannot be used: Connection refused."),
        (C("Error while reading from host:1 : (104, 'Connection reset by peer')"), "cannot be used: Connection reset by peer."),
        (C("Error 8 connecting to h:1. EOF occurred in violation of protocol (_ssl.c:1)."), "no TLS handshake (it closed the connection)"),
        (redis.TimeoutError("Timeout reading from socket"), "cannot be used: Timeout reading from socket."),
        (OSError("Bad file descriptor"), "cannot be used: Bad file descriptor."),
        (redis.exceptions.BusyLoadingError("Redis is loading"), "cannot be used: Redis is loading."),
        (redis.exceptions.ClusterDownError("Hash slot not served"), "cannot be used: Hash slot not served."),
        (redis.exceptions.OutOfMemoryError("command not allowed"), "is full: raise its maxmemory"),
        (R("Error running script (call to f_1): @user_script:3: -OOM command not allowed"), "is full"),
        (R("MISCONF Errors writing to the AOF file: No space left"), "MISCONF"),
        (R("WRONGTYPE Operation against a key"), "values of another type"),
        (R("BUSYGROUP Consumer Group name already exists"), "cannot be used: BUSYGROUP"),
        (R("a proxy has lost its server"), "cannot be used: a proxy has lost its server."),
        (redis.RedisError(""), "cannot be used: RedisError."),
        (UnicodeError("surrogates not allowed"), "failed: UnicodeError: surrogates not allowed."),
        (AttributeError("a bug\nof the client"), "failed: AttributeError: a bug."),
    ],
)  # fmt: skip
def test_what_may_pass_is_an_outage(error: Exception, expected: str) -> None:
    translated = translate(error, "redis://host")
    assert type(translated) is UnavailableError
    assert expected in str(translated)


@pytest.mark.parametrize(
    ("error", "expected", "lasting"),
    [
        (redis.exceptions.ReadOnlyError("You can't write"), "read-only replica", False),
        (R("Error running script (call to f_1): @user_script:3: -READONLY You can't write"), "read-only", False),
        (redis.exceptions.MovedError("1 host:1"), "several shards", True),
        (redis.exceptions.AskError("1 host:1"), "several shards", True),
        (redis.exceptions.ClusterCrossSlotError("Keys in request don't hash"), "several shards", True),
        (redis.exceptions.NoPermissionError("User a has no permissions to run the 'evalsha' command"), "+evalsha", True),
        (redis.exceptions.NoPermissionError("No permissions to access a key"), "access a key", True),
        (R("ACL failure in script: User a has no permissions to run the 'hset' command script: 1, on @user_script:2."), "+hset", True),
        (R("The user executing the script can't run this command or subcommand"), "lacks a permission", True),
        (redis.AuthenticationError("invalid username-password pair"), "refuses the user or password", True),
        (redis.AuthenticationError("Authentication required."), "asks for a password", True),
        (R("DB index is out of range"), "another database number", True),
        (R("SELECT is not allowed in cluster mode"), "another database number", True),
        (R("unknown command 'EVAL', with args beginning with: 'OOM' 'MISCONF'"), "unknown command 'EVAL';", True),
        (R("unknown command `HELLO`, with args beginning with: `3`, "), "unknown command `HELLO`;", True),
        (R("Unknown Redis command called from script script: 1, on @user_script:2."), "Unknown Redis command", True),
        (C("Error 1 connecting to host:1. [SSL: CERTIFICATE_VERIFY_FAILED] failed"), "cannot be used over TLS", True),
        (C("Error 116 connecting to host:1. [X509: KEY_VALUES_MISMATCH] key values mismatch (_ssl.c:3926)."), "ssl_keyfile is not the key", True),
        (C("Error No cipher can be selected. connecting to host:1."), "ssl_ciphers", True),
        (R("Client names cannot contain spaces, newlines or special characters."), "refuses an argument", True),
        (UnicodeError("encoding with 'idna' codec failed"), "host name is invalid", True),
        (redis.exceptions.InvalidResponse("Protocol error"), "does not answer like Redis", True),
    ],
)  # fmt: skip
def test_what_lasts_is_a_refusal_that_says_what_to_do(error: Exception, expected: str, lasting: bool) -> None:
    translated = translate(error, "redis://host")
    assert isinstance(translated, RefusalError)
    assert translated.lasting is lasting
    assert expected in str(translated)


def test_the_command_of_a_pipeline_is_left_out() -> None:
    error = R(
        "Command # 1 (EVAL -- MOVED\nREADONLY) of pipeline caused error: NOREPLICAS Not enough replicas"
    )
    assert str(translate(error, "redis://host")) == (
        "Redis at redis://host cannot be used: NOREPLICAS Not enough replicas."
    )


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"redis_version": "6.0.16"}, "is 6.0.16; agentexec needs 6.2 or newer"),
        ({"redis_version": 5.0}, "is 5.0; agentexec needs 6.2 or newer"),
        ({"redis_mode": "sentinel", "redis_version": "7.2.4"}, "is a Sentinel"),
        ({"server_mode": "sentinel", "redis_version": "7.2.4"}, "is a Sentinel"),
        ({"maxmemory": 1, "maxmemory_policy": "allkeys-lfu"}, "would evict queued tasks"),
    ],
)
def test_a_server_that_says_it_is_unfit_is_refused(info: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        check_info(info, "redis://host")


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"redis_version": "6.2.0", "role": "master"},
        {"redis_version": "7.4.0-v1", "maxmemory": 0, "maxmemory_policy": "allkeys-lru"},
        {"redis_version": "8.0", "maxmemory": 1, "maxmemory_policy": "volatile-lru"},
        {"redis_version": "10.0.0"},
        {"redis_version": "unstable"},
        {"redis_version": "7"},
    ],
)
def test_other_servers_are_accepted(info: dict[str, Any]) -> None:
    check_info(info, "redis://host")

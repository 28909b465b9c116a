"""A Redis that cannot serve: the check before the start says in one sentence what is missing and what to do."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine

import agentexec
from agentexec.config import Settings
from agentexec.errors import UnavailableError, UsageError
from agentexec.redaction import redact
from agentexec.state.redis_backend import RedisBackend, connection, create
from agentexec.state.redis_backend.refusals import SENTENCES
from agentexec.task import Entry, new_agent_id
from tests.redis_clusters import LEAST_RULES, Cluster, ClusterNode, Sentinel
from tests.servers import HOST, Valkey, free_port
from tests.waiting import wait_until

LUA = Path(agentexec.__file__).parent / "state" / "redis_backend" / "lua"


def make(url: str, prefix: str = "agentexec") -> RedisBackend:
    settings = Settings(redis_url=url, key_prefix=prefix, queue_name="emails")
    return create(settings, create_engine("sqlite://"))


def refusal(url: str) -> str:
    """Return the sentence of the check, which is for somebody to act on, not an outage."""
    with pytest.raises(UsageError) as caught:
        make(url).ping()
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def limited_url(broker: Valkey, server: redis.Redis, rules: Sequence[str]) -> str:
    """Give the user `limited` exactly these rules, and return its URL."""
    server.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", *rules)
    return broker.url.replace("//", "//limited:pw@")


class TestPermissions:
    def test_the_rules_of_the_guide_are_enough_and_each_is_needed(
        self, broker: Valkey, server: redis.Redis
    ) -> None:
        make(limited_url(broker, server, LEAST_RULES)).ping()
        for rule in LEAST_RULES:
            url = limited_url(broker, server, [other for other in LEAST_RULES if other != rule])
            if rule in ("+info", "+select", "+cluster|slots", "+asking"):
                make(url).ping()  # asked if allowed; needed for another database than 0 or for a cluster
            else:
                sentence = refusal(url)
                assert f" {rule} " in sentence, f"{rule} is missing: {sentence}"
                assert "to its ACL" in sentence

    def test_all_that_is_missing_is_named_at_once(self, broker: Valkey, server: redis.Redis) -> None:
        rules = ["~{agentexec:*", "+@all", "-hset", "-zadd", "-blpop"]
        assert "add +hset +zadd +blpop ~agentexec:* to its ACL" in refusal(limited_url(broker, server, rules))

    def test_another_database_needs_select(self, broker: Valkey, server: redis.Redis) -> None:
        url = limited_url(broker, server, ["~*", "+@all", "-select"]).replace("/0", "/1")
        assert "add +select to its ACL" in refusal(url)

    def test_the_check_calls_every_command_of_the_scripts(self) -> None:
        called = {
            command
            for script in LUA.glob("*.lua")
            for command in re.findall(r"redis\.p?call\('(\w+)'", script.read_text())
        }
        tried = set(re.findall(r"try\('(\w+)'", (LUA / "preflight.lua").read_text()))
        assert called - {"INFO"} == tried, "lua/preflight.lua must try each command that another script needs"

    def test_a_call_that_is_denied_later_is_an_outage(self, broker: Valkey, server: redis.Redis) -> None:
        backend = make(limited_url(broker, server, ["~*", "+@all"]))
        backend.ping()
        server.execute_command("ACL", "SETUSER", "limited", "-evalsha")
        with pytest.raises(UnavailableError, match=r"lacks a permission: add \+evalsha to its ACL"):
            backend.depth("emails")
        server.execute_command("ACL", "SETUSER", "limited", "+evalsha")
        assert backend.depth("emails").ready == 0


def test_no_sentence_looks_like_a_secret() -> None:
    """Workers and commands redact what they print."""
    for sentence in SENTENCES.values():
        assert redact(sentence) == sentence


class TestSettings:
    def test_a_wrong_password(self, broker: Valkey, server: redis.Redis) -> None:
        sentence = refusal(broker.url.replace("//", "//nobody:secret-word@"))
        assert "refuses the user or password" in sentence
        assert "correct them in AGENTEXEC_REDIS_URL" in sentence
        assert "secret-word" not in sentence

    def test_no_password(self, broker: Valkey, server: redis.Redis) -> None:
        server.config_set("requirepass", "secret-word")
        assert "asks for a password; add user and password to AGENTEXEC_REDIS_URL" in refusal(broker.url)

    def test_a_database_that_does_not_exist(self, broker: Valkey) -> None:
        assert "write another database number" in refusal(broker.url.replace("/0", "/99"))

    def test_an_invalid_host_name(self) -> None:
        assert "its host name is invalid" in refusal("redis://a..b:6379/0")


class TestServer:
    def test_a_replica_may_become_the_primary_and_is_named_with_it(
        self, broker: Valkey, server: redis.Redis
    ) -> None:
        port = free_port()
        server.execute_command("REPLICAOF", HOST, port)
        backend = make(broker.url)
        with pytest.raises(
            UnavailableError, match=f"read-only replica.*to its primary, {HOST}:{port}"
        ) as caught:
            backend.ping()
        assert caught.value.exit_code == 2, (
            "a worker waits for it, and then ends with the code of a wrong setting"
        )
        server.execute_command("REPLICAOF", "NO", "ONE")
        backend.ping()

    def test_a_replica_that_may_be_written_to_would_lose_its_tasks(
        self, broker: Valkey, server: redis.Redis
    ) -> None:
        server.config_set("replica-read-only", "no")
        server.execute_command("REPLICAOF", HOST, free_port())
        try:
            with pytest.raises(
                UnavailableError, match="it is a replica; set AGENTEXEC_REDIS_URL to its primary"
            ):
                make(broker.url).ping()
        finally:
            server.config_set("replica-read-only", "yes")

    def test_a_full_server_is_accepted_because_workers_empty_it(
        self, broker: Valkey, server: redis.Redis
    ) -> None:
        make(broker.url).push("emails", [Entry(new_agent_id())])
        server.config_set("maxmemory", 1)
        make(broker.url).ping()

    def test_a_cluster_in_the_making_is_an_outage_and_one_shard_serves(self) -> None:
        with ClusterNode() as node:
            with pytest.raises(UnavailableError, match="cannot be used"):
                make(node.url).ping()
            node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: node.state == "ok")
            make(node.url).ping()
            node.ask("ACL", "SETUSER", "limited", "on", ">pw", *LEAST_RULES, "-cluster|slots", "-asking")
            make(node.url.replace("//", "//limited:pw@")).ping()

    def test_a_cluster_whose_map_the_user_may_not_see(self, cluster: Cluster) -> None:
        for node in cluster.nodes:
            node.ask("ACL", "SETUSER", "blind", "on", ">pw", "~*", "+@all", "-cluster")
        sentence = refusal(cluster.url.replace("//", "//blind:pw@"))
        assert "several shards that does not show their map; add +cluster|slots to the user's ACL" in sentence
        assert "+cluster|slots" in refusal(cluster.list_url.replace("//", "//blind:pw@"))

    def test_several_servers_that_are_not_a_cluster(self, broker: Valkey) -> None:
        assert "is not part of a cluster" in refusal(broker.url.replace("/0", f",{HOST}:{free_port()}/0"))

    def test_a_sentinel(self, valkey: Valkey) -> None:
        with Sentinel(valkey) as sentinel:
            assert "is a Sentinel, which keeps no data; set AGENTEXEC_REDIS_URL to the primary" in refusal(
                sentinel.url
            )
            assert "not to a Sentinel" in refusal(sentinel.url.replace("/0", "/1"))

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer like Redis"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer like Redis"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS on this port: write rediss://"),
            (b"+OK\r\n", "does not answer like Redis"),
            (b":1\r\n", "does not answer like Redis"),
            (b"*0\r\n", "does not answer like Redis"),
            (
                b"-ERR unknown command 'HELLO', with args beginning with: '3'\r\n",
                "unknown command 'HELLO'; set AGENTEXEC_REDIS_URL",
            ),
            (
                b"-DENIED Redis is running in protected mode because\r\n",
                "its protected mode refuses other hosts",
            ),
        ],
    )
    def test_a_server_that_is_not_redis_or_refuses_everything(self, answer: bytes, expected: str) -> None:
        with Impostor(answer) as impostor:
            sentence = refusal(impostor.url)
            assert expected in sentence
            assert not re.search(r"\w+Error\b", sentence), "no names of Python's errors"

    @pytest.mark.parametrize(
        "answer",
        [
            b"-LOADING Redis is loading the dataset in memory\r\n",
            b"-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n",
            b"-NOREPLICAS Not enough good replicas to write.\r\n",
            b"-ERR max number of clients reached\r\n",
            b"-BUSY Redis is busy running a script.\r\n",
            b"-ERR some proxy has lost its server\r\n",
            b"",
        ],
    )
    def test_what_may_pass_is_an_outage(self, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "TIMEOUT", 0.3)
        with Impostor(answer) as impostor, pytest.raises(UnavailableError, match="cannot be used"):
            make(impostor.url).ping()

    def test_a_server_without_tls_is_suspected_behind_a_url_of_tls(
        self, broker: Valkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "TIMEOUT", 0.3)
        with pytest.raises(
            UnavailableError, match=r"handshake timed out.*write redis:// instead of rediss://"
        ):
            make(broker.url.replace("redis:", "rediss:")).ping()

    def test_a_connection_that_is_lost_later_says_nothing_of_tls(self) -> None:
        with Impostor(b"") as impostor:
            with pytest.raises(UnavailableError, match="closed by server; if this port speaks TLS"):
                make(impostor.url).ping()
            backend = make(impostor.url)
            backend._connections._found = backend._connections._plain  # it has answered
            with pytest.raises(UnavailableError, match=r"closed by server\.$"):
                backend.depth("emails")

    def test_a_full_disk_passes(self, broker: Valkey, server: redis.Redis) -> None:
        # The snapshot cannot take the place of a folder.
        (broker.folder / "dump.rdb").mkdir()
        try:
            server.config_set("save", "3600 1000")
            server.bgsave()
            wait_until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
            with pytest.raises(UnavailableError, match="MISCONF"):
                make(broker.url).ping()
        finally:
            (broker.folder / "dump.rdb").rmdir()
            server.config_set("save", "")
        make(broker.url).ping()


def test_the_check_leaves_nothing_behind(broker: Valkey, server: redis.Redis) -> None:
    for _ in range(2):
        make(broker.url, "tenant").ping()
        assert server.keys("*") == []


def test_workers_that_start_together_do_not_disturb_each_other(broker: Valkey) -> None:
    errors: list[Exception] = []

    def check() -> None:
        try:
            for _ in range(10):
                make(broker.url).ping()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


class Impostor:
    """Server that gives the same answer to everything; an empty one closes the connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> Impostor:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(65536) and self._answer:
                    connection.sendall(self._answer)
            except OSError:
                return

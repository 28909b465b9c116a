"""Redis over TLS: an authority of our own, client certificates, and what is said when they do not fit.

The Valkey of the wheel has no TLS, so these tests need Debian's redis-server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

import pytest
import redis
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import UnavailableError, UsageError
from agentexec.state.redis_backend import RedisBackend, create
from agentexec.testing.backend_suite.operations import claim, ids, push
from tests.certificates import Authority
from tests.redis_clusters import LEAST_RULES
from tests.servers import HOST, RedisServer
from tests.waiting import wait_until

SERVERLESS_RULES = [rule for rule in LEAST_RULES if rule != "+asking"]
"""Rules for a server of which ElastiCache Serverless is one: one node has all slots, and never redirects."""


class TlsServer(RedisServer):
    """Node of a cluster that speaks TLS alone, also with clients that have a certificate of the authority."""

    def __init__(self, authority: Authority, address: str = HOST) -> None:
        super().__init__()
        self._authority = authority
        certificate, key = authority.sign(f"server{self.port}", address)
        self.client_files = authority.sign(f"client{self.port}")
        self._settings |= {
            "cluster-enabled": "yes",
            "tls-cluster": "yes",
            "tls-port": str(self.port),
            "tls-cert-file": str(certificate),
            "tls-key-file": str(key),
            "tls-ca-cert-file": str(authority.file),
            "cluster-port": str(self.port + 10_000),
        }

    def _command(self) -> Sequence[str]:
        command = list(super()._command())
        command[command.index("--port") + 1] = "0"
        return command

    def client(self) -> redis.Redis:
        certificate, key = self.client_files
        return redis.Redis(
            host=HOST,
            port=self.port,
            ssl=True,
            ssl_cert_reqs="none",
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
        )

    def url_with(self, **files: Path) -> str:
        """Return its URL with these files, by redis-py's names without `ssl_`."""
        return f"rediss://user:secret@{HOST}:{self.port}/0?{urlencode({f'ssl_{name}': str(file) for name, file in files.items()})}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Iterator[TlsServer]:
    with TlsServer(authority) as server:
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            client.execute_command("ACL SETUSER", "user", "on", ">secret", *SERVERLESS_RULES)
            wait_until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        yield server


def make(url: str) -> RedisBackend:
    return create(Settings(redis_url=url), create_engine("sqlite://"))


def refusal(url: str) -> str:
    with pytest.raises(UsageError) as caught:
        make(url).ping()
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_tasks_pass_with_an_own_authority_and_a_client_certificate(
    tls: TlsServer, authority: Authority
) -> None:
    certificate, key = tls.client_files
    backend = make(tls.url_with(ca_certs=authority.file, certfile=certificate, keyfile=key))
    backend.ping()
    pushed = push(backend, "queue", 2)
    backend.wait(["queue", "other"], 5)
    assert ids(claim(backend, "queue", 5)) == pushed
    backend.close()


def test_an_unknown_authority_is_refused(tls: TlsServer, tmp_path: Path) -> None:
    certificate, key = tls.client_files
    stranger = Authority(tmp_path / "stranger")
    sentence = refusal(tls.url_with(ca_certs=stranger.file, certfile=certificate, keyfile=key))
    assert "cannot be used over TLS" in sentence
    assert "certificate verify failed" in sentence


def test_nobody_passes_without_a_client_certificate(tls: TlsServer, authority: Authority) -> None:
    # The server hangs up, and whether the client still reads why is a matter of luck.
    with pytest.raises((UsageError, UnavailableError), match="cannot be used") as caught:
        make(tls.url_with(ca_certs=authority.file)).ping()
    assert "secret" not in str(caught.value)


def test_a_key_of_another_certificate_is_refused(tls: TlsServer, authority: Authority) -> None:
    certificate, _ = tls.client_files
    _, key = authority.sign("other")
    sentence = refusal(tls.url_with(ca_certs=authority.file, certfile=certificate, keyfile=key))
    assert "cannot be used over TLS: ssl_keyfile is not the key of ssl_certfile; correct" in sentence
    assert "ssl_ca_certs has no certificate" in refusal(tls.url_with(ca_certs=Path("/etc/hosts")))


def test_a_port_of_tls_is_suspected_behind_a_plain_url(tls: TlsServer) -> None:
    with pytest.raises(UnavailableError, match="; if this port speaks TLS, write rediss://"):
        make(f"redis://{HOST}:{tls.port}/0").ping()


def test_a_certificate_of_another_host_is_refused(authority: Authority) -> None:
    with TlsServer(authority, address="127.0.0.2") as server:
        certificate, key = server.client_files
        sentence = refusal(server.url_with(ca_certs=authority.file, certfile=certificate, keyfile=key))
        assert "not valid for '127.0.0.1'" in sentence

"""The URL of Redis: what is refused, and what is taken."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import UsageError
from agentexec.state.redis_backend import RedisBackend, create


def make(url: str | None) -> RedisBackend:
    return create(Settings(redis_url=url), create_engine("sqlite://"))


class TestUrl:
    def test_without_one_the_error_says_what_to_set(self) -> None:
        with pytest.raises(UsageError, match="set AGENTEXEC_REDIS_URL"):
            make(None)

    @pytest.mark.parametrize(
        "url",
        [
            "http://:secret@localhost",
            "localhost:6379",
            "redis://:secret@localhost:port/0",
            "redis://:secret@localhost:6379/zero",
            "redis://",
            "redis://:secret@localhost/0?no_such_argument=1",
            "redis://:secret@localhost/0?db=zero",
            "redis://:secret@[::1/0",
            "redis://:secret/key@localhost:6379/0",
            "redis://:secret@first:6379,:6379/0",
            "redis+sentinel://:secret@localhost:26379",
            "redis+sentinel://:secret@localhost:26379/main/zero",
            "redis+socket://:secret@localhost/0",
            "rediss://:secret@localhost/0?ssl_ca_certs=/no/such/file",
            "redis://:secret@localhost/0?ssl_ca_certs=/etc/hosts",
        ],
    )
    def test_one_that_cannot_be_read_is_refused(self, url: str) -> None:
        with pytest.raises(UsageError, match=r"^AGENTEXEC_REDIS_URL cannot be used: .*\.$") as caught:
            make(url)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis://localhost?no_such_argument=1", "argument no_such_argument is unknown"),
            ("redis://localhost?retry_on_error=a", "argument retry_on_error is unknown"),
            ("redis://localhost?db=zero", "argument db has an invalid value"),
            ("redis://localhost?protocol=4", "argument protocol is not one that redis-py accepts here"),
            ("redis://localhost?ssl_min_version=772", "argument ssl_min_version needs rediss://"),
            ("rediss://localhost?ssl_min_version=5", "ssl_min_version is not 771"),
            ("rediss://localhost?ssl_cert_reqs=maybe", "argument ssl_cert_reqs is not one"),
            ("redis://localhost?socket_connect_timeout=-1", "socket_connect_timeout is not above 0"),
            ("redis://user:12?secret=word@localhost/0", "one of its arguments is unknown"),
            ("unix://socket", "names no socket"),
        ],
    )
    def test_an_argument_that_is_refused_is_named(self, url: str, expected: str) -> None:
        with pytest.raises(UsageError, match=expected) as caught:
            make(url)
        assert "secret" not in str(caught.value)

    def test_the_path_of_a_socket_is_shown_as_it_is_written(self) -> None:
        assert (
            make("unix://user:secret@/run/redis.sock?db=1")._connections.safe_url == "unix:///run/redis.sock"
        )

    @pytest.mark.parametrize(
        "url",
        [
            "redis://localhost",
            "redis://localhost:6379",
            "rediss://user:pw@host/1",
            "unix:///tmp/r.sock?db=2",
            "redis://user:pw@first,second:6380,[::1]:6381/0?protocol=2",
            "redis+sentinel://user:pw@first,second:26380/main/2?sentinel_username=u&sentinel_password=p",
            "rediss+sentinel://first/main?ssl_ca_certs=/etc/hosts",
        ],
    )
    def test_these_are_fine(self, url: str) -> None:
        make(url)

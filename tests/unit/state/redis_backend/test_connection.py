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

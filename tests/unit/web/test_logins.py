"""Logins of the dashboard: which tokens and cookies count."""

from __future__ import annotations

import pytest

from agentexec.web.logins import SECONDS, Logins

TOKEN = "correct horse battery"


def test_a_cookie_counts_until_it_expires() -> None:
    now = 1_000_000.0
    logins = Logins(TOKEN, clock=lambda: now)
    cookie = logins.issue()
    assert logins.is_valid(cookie)
    now += SECONDS - 1
    assert logins.is_valid(cookie)
    now += 2
    assert not logins.is_valid(cookie)


def test_another_process_with_the_same_token_accepts_the_cookie() -> None:
    assert Logins(TOKEN).is_valid(Logins(TOKEN).issue())
    assert Logins(TOKEN).cookie == Logins(TOKEN).cookie


def test_another_token_does_not_accept_the_cookie() -> None:
    other = Logins("another horse battery")
    assert not other.is_valid(Logins(TOKEN).issue())
    assert other.cookie != Logins(TOKEN).cookie


def test_only_the_token_logs_in() -> None:
    logins = Logins(TOKEN)
    assert logins.accepts(TOKEN)
    for text in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\ud800", "é" * 50):
        assert not logins.accepts(text)


def test_the_cookie_does_not_tell_the_token() -> None:
    assert TOKEN not in Logins(TOKEN).issue() + Logins(TOKEN).cookie


@pytest.mark.parametrize(
    "cookie",
    [None, "", ".", "9999999999", "9999999999.", ".aa", "x" * 500, "é.é", "1e99.aa", "²." + "0" * 64],
)
def test_a_forged_cookie_does_not_count(cookie: str | None) -> None:
    assert not Logins(TOKEN).is_valid(cookie)


def test_a_cookie_with_a_later_expiry_does_not_count() -> None:
    expires, _, signature = Logins(TOKEN).issue().partition(".")
    assert not Logins(TOKEN).is_valid(f"{int(expires) + 1}.{signature}")

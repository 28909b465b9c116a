"""Options of locks and limits."""

from __future__ import annotations

from typing import Any

import pytest

import agentexec as ax
from agentexec.arguments.group_options import checked_groups, fill_concurrency_key, fill_key


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lock_key": "user:{user!r}"}, "names a field"),
        ({"lock_key": "user:{user:>9}"}, "names a field"),
        ({"lock_key": "user:{"}, "cannot be read"),
        ({"lock_key": ""}, "must not be empty"),
        ({"lock_key": "x" * 201}, "at most 200"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency_key": "{tenant}"}, "needs concurrency="),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ax.UsageError, match=reason):
        checked_groups("work", options)


@pytest.mark.parametrize(
    ("template", "context", "key"),
    [
        ("user:{user}", '{"user": 7}', "user:7"),
        ("{tenant}/{user.id}", '{"tenant": "acme", "user": {"id": "u{1}"}}', "acme/u{1}"),
        ("all", None, "all"),
        (None, None, None),
    ],
)
def test_keys_are_filled_from_the_context(template: str | None, context: str | None, key: str | None) -> None:
    assert fill_key("lock_key", "work", template, context) == key


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ("{}", "names the field user, which the context does not have"),
        ('{"user": null}', "null"),
        ('{"user": [1]}', "not a text"),
        ('{"user": "' + "x" * 200 + '"}', "at most 200"),
        (None, "does not have"),
    ],
)
def test_a_context_that_gives_no_key_is_refused(context: str | None, reason: str) -> None:
    with pytest.raises(ax.ContextInvalidError, match=reason):
        fill_key("lock_key", "work", "user:{user}", context)


def test_a_limit_without_a_key_is_that_of_the_task() -> None:
    assert fill_concurrency_key("work", 5, None, "{}") == ""
    assert fill_concurrency_key("work", 5, "{tenant}", '{"tenant": "acme"}') == "acme"
    assert fill_concurrency_key("work", None, None, "{}") is None

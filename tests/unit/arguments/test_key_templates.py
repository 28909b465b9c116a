"""Keys of tasks that are made of fields of the context."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentexec.arguments.key_templates import check_template, fill_template
from agentexec.errors import ContextInvalidError, UsageError

CONTEXT = json.dumps(
    {"user": {"id": 7, "name": "Ö {x}"}, "tenant": "acme", "vip": True, "none": None, "list": []}
)


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("fixed", "fixed"),
        ("{tenant}", "acme"),
        ("user:{user.id}", "user:7"),
        ("{tenant}/{user.name}", "acme/Ö {x}"),
        ("{{{vip}}}", "{true}"),
        ("user:{none}", None),
    ],
)
def test_fields_of_the_context_are_filled_in(template: str, key: str | None) -> None:
    assert check_template("key=", template, 200) == template
    assert fill_template("key=", template, CONTEXT, 200) == key


@pytest.mark.parametrize(
    "template", ["", "{", "{}", "{0!r}", "{a:>9}", "{a.}", "a }", 7, None, "x" * 201, "{a[0]!s}"]
)
def test_what_is_no_template_is_refused(template: Any) -> None:
    with pytest.raises(UsageError, match="key="):
        check_template("key=", template, 200)


@pytest.mark.parametrize("template", ["{missing}", "{tenant.id}", "{list}", "{user}", "{user.__class__}"])
def test_a_context_without_the_field_is_refused(template: str) -> None:
    with pytest.raises(ContextInvalidError, match="names the field"):
        fill_template("key=", template, CONTEXT, 200)
    with pytest.raises(ContextInvalidError, match="names the field"):
        fill_template("key=", template, None, 200)


def test_a_key_that_no_database_stores_is_refused() -> None:
    for value in ("x" * 201, "nul \0", "space ", ""):
        with pytest.raises(ContextInvalidError, match="key="):
            fill_template("key=", "{tenant}", json.dumps({"tenant": value}), 200)

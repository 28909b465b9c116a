"""Registration of handlers, and validation of contexts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from agentexec.errors import ContextInvalidError, UnknownTaskError, UsageError
from agentexec.registry import Registry, load_context, validate_context


class Company(BaseModel):
    company: str
    size: int = 1


class Other(BaseModel):
    company: str


async def handler(agent_id: UUID, context: Company) -> str:
    return context.company


def plain(agent_id: UUID, context: dict[str, Any]) -> None:
    return None


def test_a_definition_is_read_from_the_signature():
    definition = Registry().add("research", handler)
    assert definition.is_async
    assert definition.context.hint is Company
    assert definition.result.load('"text"') == "text"


def test_a_plain_function_is_a_handler_too():
    definition = Registry().add("plain", plain)
    assert not definition.is_async
    assert definition.context.hint == dict[str, Any]


def test_a_handler_without_context_is_refused_with_advice():
    async def bad(agent_id: UUID) -> None: ...

    with pytest.raises(UsageError, match="lacks the parameter context"):
        Registry().add("bad", bad)


def test_a_name_belongs_to_one_handler():
    registry = Registry()
    registry.add("research", handler)
    registry.add("research", handler)
    with pytest.raises(UsageError, match="registered twice"):
        registry.add("research", plain)


@pytest.mark.parametrize("options", [{"retries": -1}, {"timeout": 0}])
def test_invalid_options_are_refused(options):
    with pytest.raises(UsageError):
        Registry().add("research", handler, **options)


def test_a_timeout_needs_a_handler_that_can_be_stopped():
    with pytest.raises(UsageError, match="cannot be stopped"):
        Registry().add("plain", plain, timeout=1)


def test_the_error_of_an_unknown_task_names_the_known_ones():
    registry = Registry()
    registry.add("research", handler)
    with pytest.raises(UnknownTaskError, match=r"nope.*research"):
        registry.get("nope")


def test_a_context_may_be_a_model_a_mapping_or_json():
    definition = Registry().add("research", handler)
    expected = Company(company="Acme")
    assert validate_context(definition, expected) is expected
    assert validate_context(definition, {"company": "Acme"}) == expected
    assert load_context(definition, '{"company": "Acme"}') == expected
    assert validate_context(definition, Other(company="Acme")) == expected


def test_an_invalid_context_names_the_field_and_not_its_value():
    definition = Registry().add("research", handler)
    with pytest.raises(ContextInvalidError, match="size") as caught:
        validate_context(definition, {"company": "Acme", "size": "s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        (5, {}, "name of a task must be a text"),
        ("a\ud800", {}, "surrogate"),
        ("a\0", {}, "NUL"),
        ("a ", {}, "end with a space"),
        ("a", {"retries": "3"}, "Task a: retries must be a whole number"),
        ("a", {"retries": 1.5}, "Task a: retries must be a whole number"),
        ("a", {"retries": True}, "Task a: retries must be a whole number"),
        ("a", {"retries": 10**30}, "Task a: retries must be 2147483647 or less"),
        ("a", {"timeout": "5"}, "Task a: timeout must be a number"),
        ("a", {"timeout": float("nan")}, "Task a: timeout must be a number"),
        ("a", {"timeout": float("inf")}, "Task a: timeout must be a number"),
    ],
)
def test_odd_names_and_options_are_refused_as_enqueue_refuses_them(
    name: Any, options: Any, complaint: str
) -> None:
    async def handler(agent_id: UUID, context: Any) -> None:
        pass

    with pytest.raises(UsageError, match=complaint):
        Registry().add(name, handler, **options)

"""Types that every layer shares."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import agentexec as ax


class Order(BaseModel):
    priority: ax.Priority = ax.Priority.LOW


@pytest.mark.parametrize("given", ["high", "HIGH", "High", 0, "0", ax.Priority.HIGH])
def test_a_priority_is_read_from_its_name_or_number(given: Any) -> None:
    assert Order(priority=given).priority is ax.Priority.HIGH
    assert ax.Priority(given) is ax.Priority.HIGH


def test_the_json_of_a_priority_is_its_name() -> None:
    assert Order().model_dump_json() == '{"priority":"low"}'
    assert TypeAdapter(dict[ax.Priority, int]).dump_json({ax.Priority.HIGH: 3}) == b'{"high":3}'
    assert Order.model_validate_json('{"priority": "low"}') == Order.model_validate_json('{"priority": 1}')
    assert Order.model_json_schema()["properties"]["priority"]["enum"] == ["high", "low"]
    assert Order().model_dump() == {"priority": ax.Priority.LOW}


@pytest.mark.parametrize("given", ["urgent", "", 2, -1, True, 0.0, None, []])
def test_what_is_not_a_priority_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError, match="Input should be 'high' or 'low'"):
        Order(priority=given)

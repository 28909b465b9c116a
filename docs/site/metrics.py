"""Reference of the figures in the JSON of commands and queries, generated from their models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from agentexec.activity.queries.overview import OverviewSchema, SpentSchema, WorkerSchema
from agentexec.activity.schemas import ActivityListItemSchema, UsageSchema
from docs.site.tables import sentence, table

PARTS: dict[str, type[BaseModel]] = {
    "overview": OverviewSchema,
    "overview.workers": WorkerSchema,
    "spent": SpentSchema,
    "spent.usage": UsageSchema,
    "activities": ActivityListItemSchema,
}
"""Parts of `agentexec monitor --json`."""


def render() -> str:
    return "\n".join(
        f"### {name}\n\n{sentence(model)}\n\n{table(('field', 'type', 'meaning'), fields(model))}"
        for name, model in PARTS.items()
    )


def fields(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Return name, type and meaning of each field in a model's JSON."""
    properties = model.model_json_schema(mode="serialization")["properties"]
    hidden = {name for name, field in model.model_fields.items() if field.exclude}
    return [
        (f"`{name}`", _type(facts), facts.get("description", ""))
        for name, facts in properties.items()
        if name not in hidden
    ]


def _type(facts: dict[str, Any]) -> str:
    if "anyOf" in facts:
        return " or ".join(_type(option) for option in facts["anyOf"])
    if "$ref" in facts:
        return {"Status": "status"}.get(facts["$ref"].rpartition("/")[2], "object")
    if facts["type"] == "array":
        return f"list of {_type(facts['items'])}s"
    return str(facts.get("format", facts["type"]))

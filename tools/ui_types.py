"""TypeScript types of `agentexec-ui`, made from the pydantic models that APIs return.

    python -m tools.ui_types            writes ui/src/types/schemas.ts
    python -m tools.ui_types --check    fails if that file differs from the models

`./dev ui types` and `./dev ui check` run these. Neither needs Node.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agentexec.activity.queries.overview import OverviewSchema, SpentSchema, WorkerSchema
from agentexec.activity.schemas import (
    ActivityDetailSchema,
    ActivityEvent,
    ActivityListItemSchema,
    ActivityListSchema,
    ActivityLogSchema,
)
from agentexec.client.approvals import ApprovalSchema

MODELS: tuple[type[BaseModel], ...] = (
    ActivityLogSchema,
    ActivityListItemSchema,
    ActivityListSchema,
    ActivityDetailSchema,
    ActivityEvent,
    ApprovalSchema,
    WorkerSchema,
    OverviewSchema,
    SpentSchema,
)
"""Models whose types are exported; those that they contain follow by themselves."""

TARGET = Path(__file__).parents[1] / "ui/src/types/schemas.ts"

HEADER = "// Made from the pydantic models by `./dev ui types`. Change the models instead.\n"

_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}
_SCALARS = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}

Schema = Mapping[str, Any]


def typescript(models: Sequence[type[BaseModel]] = MODELS) -> str:
    """Return a TypeScript module with a type for each model, as it is when it has become JSON."""
    _, schema = models_json_schema([(model, "serialization") for model in models])
    return HEADER + "".join(f"\n{text}" for text in _declarations(schema["$defs"]))


def _declarations(definitions: Mapping[str, Schema]) -> Iterator[str]:
    for name, schema in sorted(definitions.items()):
        doc = _doc(schema.get("description"), indent="")
        if "properties" not in schema:
            yield f"{doc}export type {_name(name)} = {_type(schema)};\n"
            continue
        fields = "".join(
            f"{_doc(field.get('description'), indent='  ')}  {key}: {_type(field)};\n"
            for key, field in schema["properties"].items()
        )
        yield f"{doc}export interface {_name(name)} {{\n{fields}}}\n"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return _name(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    match schema.get("type"):
        case "array":
            item = _type(schema.get("items", {}))
            return f"({item})[]" if " " in item else f"{item}[]"
        case "object":
            values = schema.get("additionalProperties")
            return f"Record<string, {_type(values) if isinstance(values, Mapping) else 'unknown'}>"
        case str(kind):
            return _SCALARS[kind]
        case _:
            return "unknown"


def _name(definition: str) -> str:
    return definition.removesuffix("Schema")


def _doc(description: str | None, indent: str) -> str:
    if not description:
        return ""
    text = re.sub(r"\b(None|True|False)\b", lambda word: _PYTHON_WORDS[word[0]], description)
    lines = text.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    return (
        f"{indent}/**\n" + "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines) + f"{indent} */\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the types, or compare them with `--check`, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.ui_types", description="Write ui/src/types/schemas.ts."
    )
    parser.add_argument(
        "--check", action="store_true", help="Fail if the file differs instead of writing it."
    )
    options = parser.parse_args(arguments)
    text = typescript()
    if not options.check:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() == text:
        return 0
    print(
        "ui/src/types/schemas.ts differs from the pydantic models: run `./dev ui types`, and commit it.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())

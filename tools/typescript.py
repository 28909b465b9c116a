"""JSON schemas as types of TypeScript."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_WORDS = {"None": "null", "True": "true", "False": "false"}
_SCALARS = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}

Schema = Mapping[str, Any]


def type_of(schema: Schema) -> str:
    """Return the type of a value."""
    if "$ref" in schema:
        return name_of(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(type_of(option) for option in schema["anyOf"])
    match schema.get("type"):
        case "array":
            item = type_of(schema.get("items", {}))
            return f"({item})[]" if " " in item else f"{item}[]"
        case "object":
            values = schema.get("additionalProperties")
            return f"Record<string, {type_of(values) if isinstance(values, Mapping) else 'unknown'}>"
        case str(kind):
            return _SCALARS[kind]
        case _:
            return "unknown"


def name_of(definition: str) -> str:
    """Return the name of a type."""
    return definition.removesuffix("Schema")


def doc_of(description: str | None, indent: str) -> str:
    """Return a comment with a description, or an empty text."""
    if not description:
        return ""
    text = re.sub(r"\b(None|True|False)\b", lambda word: _WORDS[word[0]], description)
    lines = text.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    return (
        f"{indent}/**\n" + "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines) + f"{indent} */\n"
    )

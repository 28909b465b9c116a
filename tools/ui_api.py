"""Typed functions of `agentexec-ui` for all endpoints of the HTTP API, made from its OpenAPI description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI

from agentexec.web.api import router
from agentexec.web.caller import Caller
from tools.typescript import Schema, doc_of, name_of, type_of

TARGET = Path(__file__).parents[1] / "ui/src/client/api.ts"

HEADER = "// Made from the endpoints of the HTTP API by `./dev ui types`. Change the endpoints instead.\n"

DOC = "/** A function for each endpoint of agentexec's HTTP API. `Client.events` opens the streams. */\n"


class Operation(NamedTuple):
    """Endpoint, as a function of TypeScript."""

    name: str
    summary: str
    method: str
    path: str
    placed: Sequence[str]
    """Parameters in the path."""
    query: Sequence[Schema]
    body: str | None
    body_is_required: bool
    answer: str

    @property
    def query_type(self) -> str:
        """Name of the type of its query."""
        return f"{self.name[0].upper()}{self.name[1:]}Query"

    @property
    def parameters(self) -> str:
        """Parameters of the function."""
        parts = [f"{_camel(name)}: string" for name in self.placed]
        if self.body is not None:
            parts.append(f"body{'' if self.body_is_required else '?'}: {self.body}")
        if self.query:
            parts.append(f"query?: {self.query_type}")
        return ", ".join([*parts, "options?: RequestOptions"])

    @property
    def call(self) -> str:
        """The function's expression."""
        names = [_camel(name) for name in self.placed]
        names += ["body"] * (self.body is not None) + ["query"] * bool(self.query) + ["options"]
        path = re.sub(r"\{(\w+)\}", lambda found: f"${{encodeURIComponent({_camel(found[1])})}}", self.path)
        quote = "`" if self.placed else "'"
        sent = [
            part for part, given in (("query", bool(self.query)), ("body", self.body is not None)) if given
        ]
        what = f"{{ {', '.join(sent)} }}" if sent else "{}"
        return f"({', '.join(names)}) => request('{self.method}', {quote}{path}{quote}, {what}, options)"


def typescript() -> str:
    """Return the TypeScript module."""
    app = FastAPI()
    app.include_router(router(caller=_caller))
    spec = app.openapi()
    schemas = spec["components"]["schemas"]
    operations = [
        _operation(method, path, operation)
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
        if "text/event-stream" not in operation["responses"]["200"]["content"]
    ]
    bodies = sorted(_with_parts({operation.body for operation in operations if operation.body}, schemas))
    return "".join(_module(operations, {body: schemas[body] for body in bodies}))


def _with_parts(bodies: set[str], schemas: Mapping[str, Schema]) -> set[str]:
    """Return the names of bodies with those of the bodies inside them: what a request may leave out is optional there too."""
    parts = {
        part for body in bodies for part in re.findall(r"schemas/(\w+Body)\b", json.dumps(schemas[body]))
    } - bodies
    return _with_parts(bodies | parts, schemas) if parts else bodies


def _module(operations: Sequence[Operation], bodies: Mapping[str, Schema]) -> Iterator[str]:
    queries = {
        operation.query_type: _fields(
            {_camel(part["name"]): {**part["schema"], **part} for part in operation.query}, ()
        )
        for operation in operations
        if operation.query
    }
    bodies_text = {
        name: _fields(schema["properties"], schema.get("required", ())) for name, schema in bodies.items()
    }
    answers = " ".join(
        [*(operation.answer for operation in operations), *queries.values(), *bodies_text.values()]
    )
    yield HEADER
    named = set(re.findall(r"\b[A-Z]\w+", _without_docs(answers)))
    imported = sorted(named - {"Record"} - bodies.keys())
    yield f"import type {{ {', '.join(imported)} }} from '../types/schemas.js';\n"
    yield "import { type ClientOptions, createRequest, type RequestOptions } from './client.js';\n"
    for name, text in bodies_text.items():
        yield f"\n{doc_of(bodies[name].get('description'), '')}export interface {name} {{\n{text}}}\n"
    for name, text in queries.items():
        yield f"\nexport interface {name} {{\n{text}}}\n"
    yield f"\n{DOC}export interface Api {{\n"
    for operation in operations:
        yield f"  /** {operation.summary}. */\n"
        yield f"  {operation.name}({operation.parameters}): Promise<{operation.answer}>;\n"
    yield "}\n\n/** Return the typed functions of an API. */\n"
    yield "export function createApi(options: ClientOptions = {}): Api {\n"
    yield "  const request = createRequest(options);\n  return {\n"
    for operation in operations:
        yield f"    {operation.name}: {operation.call},\n"
    yield "  };\n}\n"


def _caller() -> Caller:
    return Caller()


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Operation:
    parameters = operation.get("parameters", ())
    body = operation.get("requestBody")
    schema = body and body["content"]["application/json"]["schema"]
    found = [name_of(ref) for ref in re.findall(r"#/components/schemas/(\w+)", str(schema or ""))]
    return Operation(
        _camel(operation["operationId"]),
        operation["summary"],
        method.upper(),
        path,
        [parameter["name"] for parameter in parameters if parameter["in"] == "path"],
        [parameter for parameter in parameters if parameter["in"] == "query"],
        found[0] if found else None,
        bool(body and body.get("required")),
        type_of(operation["responses"]["200"]["content"]["application/json"]["schema"]),
    )


def _fields(properties: Mapping[str, Schema], required: Sequence[str]) -> str:
    return "".join(
        f"{doc_of(field.get('description'), '  ')}  {name}{'' if name in required else '?'}: "
        f"{type_of(field)}{'' if name in required else ' | undefined'};\n"
        for name, field in properties.items()
    )


def _without_docs(text: str) -> str:
    return re.sub(r"/\*\*.*?\*/", "", text, flags=re.DOTALL)


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)

"""The description of the API: complete, stable, and the same as in the guide."""

from __future__ import annotations

import re
from typing import Any

from fastapi.testclient import TestClient

from agentexec.web.api import endpoints
from docs.checks import ROOT

OPERATIONS = {
    "approve_call",
    "cancel_activities",
    "cancel_activity",
    "compare_activities",
    "count_activities",
    "fork_activity",
    "get_activity",
    "get_conversation",
    "get_contents",
    "get_history",
    "get_me",
    "get_overview",
    "get_spent",
    "group_failed",
    "list_activities",
    "list_approvals",
    "list_conversations",
    "list_failed",
    "list_messages",
    "list_queues",
    "list_schedules",
    "list_task_runs",
    "list_workers",
    "pause_queue",
    "pause_schedule",
    "reject_call",
    "remove_conversation",
    "resume_queue",
    "resume_schedule",
    "retry_activity",
    "retry_failed",
    "run_schedule",
    "send_message",
    "stream_conversation",
    "stream_events",
}
"""Names by which generated clients know the endpoints: none may change."""


def operations(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    }


def test_every_endpoint_is_described(web: TestClient) -> None:
    spec = web.get("http://test/openapi.json").json()
    found = operations(spec)
    assert len(found) == len(endpoints())
    for name, operation in found.items():
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        for parameter in operation.get("parameters", ()):
            known = parameter["in"] == "path" or parameter.get("description") or parameter["in"] == "header"
            assert known, (name, parameter["name"])
        answers = operation["responses"]
        for code in (
            "401",
            "403",
            "422",
            "503",
            *(["404"] if "{" in name else []),
            *(["415"] if not name.startswith("GET") else []),
        ):
            schema = answers[code]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorSchema"}, (name, code)
        content = answers["200"]["content"]
        assert "text/event-stream" in content or content["application/json"]["schema"], name
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["schema"], name


def test_the_names_of_operations_are_stable(web: TestClient) -> None:
    spec = web.get("http://test/openapi.json").json()
    names = [operation["operationId"] for operation in operations(spec).values()]
    assert len(set(names)) == len(names)
    assert set(names) >= OPERATIONS


def test_the_guide_lists_every_endpoint() -> None:
    page = (ROOT / "docs/guides/http-api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `((?:GET|POST|DELETE) /[^`]*)` \|", page, re.MULTILINE))
    assert listed == {f"{endpoint.method} {endpoint.path.replace(':path', '')}" for endpoint in endpoints()}


def test_every_model_and_field_has_a_type(web: TestClient) -> None:
    schemas = web.get("http://test/openapi.json").json()["components"]["schemas"]
    for name, schema in schemas.items():
        if name not in ("HTTPValidationError", "ValidationError"):
            assert schema.get("description"), name

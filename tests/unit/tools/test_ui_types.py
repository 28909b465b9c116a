"""The TypeScript types of agentexec-ui are those of the pydantic models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, computed_field

from tools import ui_api, ui_types


class Inner(BaseModel):
    """Part of another model."""

    name: str


class SampleSchema(BaseModel):
    """Sample.

    It is None without a reason.
    """

    at: datetime = Field(description="Time, or None.")
    kind: Literal["a", "b"] = "a"
    parts: list[Inner] = Field(default_factory=list)
    either: list[int | None]
    by_name: dict[str, Inner]
    data: dict[str, Any]
    hidden: int = Field(default=0, exclude=True)

    @computed_field
    @property
    def size(self) -> float | None:
        """Size."""
        return None


def test_the_committed_types_are_those_of_the_models() -> None:
    assert ui_types.main(["--check"]) == 0


def test_a_model_becomes_the_interface_of_its_json() -> None:
    text = ui_types.typescript([SampleSchema])
    assert text == ui_types.HEADER + (
        "\n/** Part of another model. */\n"
        "export interface Inner {\n  name: string;\n}\n"
        "\n/**\n * Sample.\n *\n * It is null without a reason.\n */\n"
        "export interface Sample {\n"
        "  /** Time, or null. */\n  at: string;\n"
        '  kind: "a" | "b";\n'
        "  parts: Inner[];\n"
        "  either: (number | null)[];\n"
        "  by_name: Record<string, Inner>;\n"
        "  data: Record<string, unknown>;\n"
        "  /** Size. */\n  size: number | null;\n"
        "}\n"
    )


def test_a_file_that_differs_is_told(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui_types, "TARGET", tmp_path / "schemas.ts")
    monkeypatch.setattr(ui_types, "API_TARGET", tmp_path / "api.ts")
    (tmp_path / "schemas.ts").write_text("old")
    assert ui_types.main(["--check"]) == 1
    assert "./dev ui types" in capsys.readouterr().err
    assert ui_types.main([]) == 0
    assert ui_types.main(["--check"]) == 0


def test_an_endpoint_becomes_a_function() -> None:
    text = ui_api.typescript()
    assert (
        "  /** Cancel a task. */\n  cancelActivity(agentId: string, options?: RequestOptions): Promise<Act>;\n"
        in text
    )
    assert (
        "    cancelActivity: (agentId, options) =>"
        " request('POST', `/activity/${encodeURIComponent(agentId)}/cancel`, {}, options),\n"
    ) in text
    assert (
        "  listActivities(query?: ListActivitiesQuery, options?: RequestOptions): Promise<ActivityList>;\n"
        in text
    )
    assert (
        "    retryFailed: (body, options) => request('POST', '/failed/retry', { body }, options),\n" in text
    )
    assert "  createdAfter?: string | null | undefined;\n" in text
    assert "stream" not in text.partition("export function createApi")[2]

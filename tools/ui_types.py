"""TypeScript of `agentexec-ui` that is made from Python: the types of what APIs return, and functions for its endpoints.

    python -m tools.ui_types            writes ui/src/types/schemas.ts and ui/src/client/api.ts
    python -m tools.ui_types --check    fails if a file differs from the models and endpoints

`./dev ui types` and `./dev ui check` run these. Neither needs Node.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agentexec.activity.queries.overview import OverviewSchema, SpentSchema, WorkerSchema
from agentexec.activity.queries.queues import QueueSchema
from agentexec.activity.schemas import (
    ActivityDetailSchema,
    ActivityEvent,
    ActivityListItemSchema,
    ActivityListSchema,
    ActivityLogSchema,
)
from agentexec.client.approval_rules import ApprovalRuleSchema
from agentexec.client.approvals import ApprovalSchema
from agentexec.client.comparison import ComparisonSchema
from agentexec.conversations.listing import ConversationSchema
from agentexec.conversations.turns import ConversationEvent, ConversationMessage, HistoryItem
from agentexec.web.forks import RunSchema
from agentexec.web.schemas import (
    ActivityCountSchema,
    ActSchema,
    BulkSchema,
    CallerSchema,
    ContentsSchema,
    FailedGroupListSchema,
    FailedListSchema,
    RuleSavedSchema,
    ScheduleItemSchema,
    StartedSchema,
)
from tools import ui_api
from tools.typescript import Schema, doc_of, name_of, type_of

MODELS: tuple[type[BaseModel], ...] = (
    ActivityLogSchema,
    ActivityListItemSchema,
    ActivityListSchema,
    ActivityDetailSchema,
    ActivityEvent,
    ApprovalSchema,
    ApprovalRuleSchema,
    WorkerSchema,
    OverviewSchema,
    SpentSchema,
    QueueSchema,
    ActSchema,
    ActivityCountSchema,
    BulkSchema,
    CallerSchema,
    ComparisonSchema,
    ContentsSchema,
    ConversationSchema,
    ConversationMessage,
    ConversationEvent,
    HistoryItem,
    FailedGroupListSchema,
    FailedListSchema,
    RuleSavedSchema,
    RunSchema,
    ScheduleItemSchema,
    StartedSchema,
)
"""Models whose types are exported; those that they contain follow by themselves."""

TARGET = Path(__file__).parents[1] / "ui/src/types/schemas.ts"

API_TARGET = ui_api.TARGET

HEADER = "// Made from the pydantic models by `./dev ui types`. Change the models instead.\n"


def typescript(models: Sequence[type[BaseModel]] = MODELS) -> str:
    """Return a TypeScript module with a type for each model, as it is when it has become JSON."""
    _, schema = models_json_schema([(model, "serialization") for model in models])
    return HEADER + "".join(f"\n{text}" for text in _declarations(schema["$defs"]))


def _declarations(definitions: Mapping[str, Schema]) -> Iterator[str]:
    for name, schema in sorted(definitions.items()):
        doc = doc_of(schema.get("description"), indent="")
        if "properties" not in schema:
            yield f"{doc}export type {name_of(name)} = {type_of(schema)};\n"
            continue
        fields = "".join(
            f"{doc_of(field.get('description'), indent='  ')}  {key}: {type_of(field)};\n"
            for key, field in schema["properties"].items()
        )
        yield f"{doc}export interface {name_of(name)} {{\n{fields}}}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or compare them with `--check`, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.ui_types", description="Write TypeScript of ui/.")
    parser.add_argument("--check", action="store_true", help="Fail if a file differs instead of writing it.")
    options = parser.parse_args(arguments)
    failed = 0
    for path, text in ((TARGET, typescript()), (API_TARGET, ui_api.typescript())):
        if not options.check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            failed = 1
            print(
                f"{path.name} differs from the Python code: run `./dev ui types`, and commit it.",
                file=sys.stderr,
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())

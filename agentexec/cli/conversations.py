"""`agentexec conversations`: list conversations, or print what was said in one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

import agentexec as ax
from agentexec.cli.options import AsJson, parse_labels
from agentexec.cli.output import echo_json, format_moment, format_table, one_line, printable

HEADS = ("CONVERSATION", "TASK", "MESSAGES", "CHANGED")


def run(
    conversation: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Print the history of this conversation.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", "-m", metavar="KEY=VALUE", help="Only conversations with this label (repeatable)."
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", min=1, max=1000, help="Number of conversations, or of the last items."),
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """List conversations, those first that changed last, or print the history of one, without secrets."""
    # Imported on use: the other commands start faster without SQLAlchemy.
    from agentexec.conversations.listing import find_visible, list_conversations
    from agentexec.values.presentation import Presenter

    labels = parse_labels(metadata)
    if conversation is None:
        _list(list_conversations(ax.get_engine(), limit=limit, metadata_filter=labels), as_json)
        return
    found = find_visible(ax.get_engine(), conversation, labels)
    history = ax.conversation(found.id).history_sync(limit)
    _print([Presenter(ax.CONF.secrets).present(entry.model_dump(mode="json")) for entry in history], as_json)


def _list(found: list[Any], as_json: bool) -> None:
    if as_json:
        echo_json(json.dumps([row.model_dump(mode="json") for row in found]))
        return
    now = datetime.now(UTC)
    rows = [
        (one_line(row.id), one_line(row.task or "-"), str(row.messages), format_moment(row.updated_at, now))
        for row in found
    ]
    for line in format_table(HEADS, rows) if rows else ():
        typer.echo(line)
    if not rows:
        typer.echo("No conversations match.", err=True)


def _print(history: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        echo_json(json.dumps(history))
        return
    for entry in history:
        typer.echo(printable(_line(entry["item"])))
    if not history:
        typer.echo("Nothing was said yet.", err=True)


def _line(item: dict[str, Any]) -> str:
    """Return an item of a history as a person reads it."""
    kind = item.get("type")
    if kind == "function_call":
        return f"{item.get('name')}({item.get('arguments')})"
    if kind == "function_call_output":
        return f"-> {item.get('output')}"
    content = item.get("content")
    if isinstance(content, list):
        parts = [part.get("text") or f"[{part.get('type')}]" for part in content if isinstance(part, dict)]
        content = "".join(str(part) for part in parts)
    return f"{item.get('role') or kind}: {'' if content is None else content}"

"""The details of one task as lines: facts, questions, children, steps, log, error."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from agentexec.activity.schemas import ActivityChildSchema
from agentexec.cli.dashboard.data import Detail
from agentexec.cli.dashboard.view import STYLES, format_cost, format_count, format_duration, progress_bar
from agentexec.cli.output import format_time, one_line


def render_detail(found: Detail, now: datetime) -> list[Text]:
    """Everything, to be scrolled through."""
    one = found.activity
    head = Text(one_line(one.agent_type), "bold")
    head.append(f"  {one.agent_id}  ", "")
    head.append(one.status.value, STYLES[one.status.value])
    head.append("  ")
    head.append_text(progress_bar(one.percentage, one.status, 20))
    facts = [f"created {format_time(one.created_at)}", f"attempt {one.attempt}"]
    if one.started_at is not None:
        facts.append(f"ran {format_duration(((one.finished_at or now) - one.started_at).total_seconds())}")
    if one.usage.requests:
        tokens = f"{format_count(one.usage.input_tokens)} + {format_count(one.usage.output_tokens)} tokens"
        facts.append(f"{one.usage.requests} requests, {tokens}")
    if one.cost is not None:
        facts.append(format_cost(one.cost))
    if one.parent_id is not None:
        facts.append(f"parent {one.parent_id}")
    made = [head, Text("  ".join(facts))]
    for question in found.approvals:
        text = f"waits for approval: {one_line(question.tool)}({one_line(question.arguments)})"
        made.append(Text(text, "bold yellow"))
    if one.children:
        made += [_title("children"), *_tree(one.children)]
    if found.steps:
        made.append(_title("steps"))
        made += [
            Text(
                f"{format_time(step.at)}  {step.kind.value:<8} epoch {step.epoch}  {one_line(step.path)}"
                f"  {one_line(step.what)}".rstrip()
            )
            for step in found.steps
        ]
    made.append(_title("log"))
    for line in one.logs:
        share = "" if line.percentage is None else f"{line.percentage}%"
        text = Text(f"{format_time(line.created_at)} {share:>5} ")
        text.append(f"{line.status.value:<9}", STYLES[line.status.value])
        text.append(one_line(line.message))
        made.append(text)
    if one.error:
        made.append(_title("error"))
        made += [Text(one_line(line), "red") for line in one.error.splitlines()]
    return made


def _title(name: str) -> Text:
    return Text(f"── {name} ──", "bold")


def _tree(children: Sequence[ActivityChildSchema], depth: int = 0) -> list[Text]:
    made: list[Text] = []
    for child in children:
        text = Text("  " * depth + "└ ")
        text.append(child.status.value, STYLES[child.status.value])
        text.append(f" {one_line(child.agent_type)} {child.percentage}% {one_line(child.latest_log_message)}")
        text.append(f"  {child.agent_id}", "dim")
        made += [text, *_tree(child.children, depth + 1)]
    return made

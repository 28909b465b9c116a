"""The details of one task as lines: facts, approvals, children, steps, log, error."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from agentexec.activity.schemas import ActivityChildSchema, ActivityDetailSchema
from agentexec.cli.contents import contents_lines, value_lines
from agentexec.cli.output import SHOWN_CHARACTERS, format_duration, format_time, one_line
from agentexec.cli.queue_facts import priority_name
from agentexec.cli.screen.data import Detail
from agentexec.cli.screen.view import STYLES, format_cost, format_count, progress_bar
from agentexec.cli.situation import attempts_text, sentences
from agentexec.config import CONF
from agentexec.values.presentation import Bounds, Presenter

if TYPE_CHECKING:
    from agentexec.cli.task_view import TaskView
    from agentexec.journal.history import Step


def render_detail(detail: Detail, now: datetime) -> list[Text]:
    """Return all lines, for scrolling through."""
    task = detail.activity
    lines = [_title_line(task), Text(one_line("  ".join(_facts(task, now))))]
    presenter = Presenter(CONF.secrets, Bounds(), f"agentexec show {task.agent_id} --full")
    lines += [_sentence_line(sentence) for sentence in sentences(detail.view, now, presenter)]
    lines += _contents(detail.view, presenter)
    if task.children:
        lines += [_heading("children"), *_tree(task.children)]
    if detail.steps:
        lines += [_heading("steps"), *map(_step_line, detail.steps)]
    lines += [_heading("log"), *_log(task, presenter)]
    if task.error:
        lines.append(_heading("error"))
        lines += [Text(one_line(line), "red") for line in task.error.splitlines()]
    return lines


def _heading(name: str) -> Text:
    return Text(f"── {name} ──", "bold")


def _title_line(task: ActivityDetailSchema) -> Text:
    line = Text(one_line(task.task_name), "bold")
    line.append(f"  {task.agent_id}  ", "")
    line.append(task.status.value, STYLES[task.status.value])
    line.append("  ")
    line.append_text(progress_bar(task.percentage, task.status, 20))
    return line


def _facts(task: ActivityDetailSchema, now: datetime) -> list[str]:
    facts = [f"created {format_time(task.created_at)}", f"attempt {attempts_text(task)}"]
    if task.queue is not None:
        facts.insert(0, f"queue {task.queue}  priority {priority_name(task.priority)}")
    if task.started_at is not None:
        seconds = ((task.finished_at or now) - task.started_at).total_seconds()
        facts.append(f"ran {format_duration(seconds)}")
    if task.usage.requests:
        tokens = f"{format_count(task.usage.input_tokens)} + {format_count(task.usage.output_tokens)} tokens"
        facts.append(f"{task.usage.requests} requests, {tokens}")
    if task.cost is not None:
        facts.append(format_cost(task.cost))
    if task.budget is not None:
        facts.append(f"budget {task.budget}")
    if task.parent_id is not None:
        facts.append(f"parent {task.parent_id}")
    return facts


def _sentence_line(sentence: str) -> Text:
    return Text(one_line(sentence), "bold yellow" if sentence.startswith("waits for") else "")


def _contents(view: TaskView, presenter: Presenter) -> list[Text]:
    metadata = presenter.present(dict(sorted((view.activity.metadata or {}).items())))
    lines = [
        *(value_lines("metadata", metadata) if metadata else ()),
        *contents_lines(view.contents, presenter),
    ]
    return [Text(line) for line in lines]


def _step_line(step: Step) -> Text:
    line = f"{format_time(step.at)}  {step.kind.value:<8} epoch {step.epoch}  {one_line(step.path)}"
    return Text(f"{line}  {one_line(step.what)}".rstrip())


def _log(task: ActivityDetailSchema, presenter: Presenter) -> list[Text]:
    lines: list[Text] = []
    for entry in task.logs:
        progress = "" if entry.percentage is None else f"{entry.percentage}%"
        line = Text(f"{format_time(entry.created_at)} {progress:>5} ")
        line.append(f"{entry.status.value:<9}", STYLES[entry.status.value])
        line.append(one_line(presenter.text(entry.message, SHOWN_CHARACTERS)))
        lines.append(line)
    return lines


def _tree(children: Sequence[ActivityChildSchema], depth: int = 0) -> list[Text]:
    lines: list[Text] = []
    for child in children:
        line = Text("  " * depth + "└ ")
        line.append(child.status.value, STYLES[child.status.value])
        line.append(f" {one_line(child.task_name)} {child.percentage}% {one_line(child.latest_log_message)}")
        line.append(f"  {child.agent_id}", "dim")
        lines += [line, *_tree(child.children, depth + 1)]
    return lines

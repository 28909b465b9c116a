"""Parts of the monitor's screen: header, workers, table, each for a given width. Texts of tasks are made harmless."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentexec.activity.queries.overview import LOST_SECONDS, OverviewSchema, SpentSchema, WorkerSchema
from agentexec.activity.schemas import ActivityListItemSchema
from agentexec.arguments.budgets import short_title
from agentexec.cli.output import format_duration, one_line
from agentexec.cli.situation import FAR, future_start, start_text
from agentexec.task import Status

MAX_BUDGETS = 3
"""Shared budgets in the header."""

NEARLY = 0.9
"""Part of a budget from which it is marked."""

BARS = "▁▂▃▄▅▆▇█"
STYLES = {
    "queued": "yellow",
    "running": "cyan",
    "complete": "green",
    "error": "red",
    "canceled": "bright_black",
}


def header(
    overview: OverviewSchema, spent: SpentSchema | None, width: int, *, paused: bool, query: str
) -> list[Text]:
    """Return two or three lines: counts; rates; tokens, cost and filter."""
    lines = [_counts(overview, paused=paused), _rates(overview, width)]
    third = Text(no_wrap=True, overflow="ellipsis")
    if spent is not None and spent.usage.requests:
        usage = spent.usage
        third.append(
            f"last {spent.minutes} min: {usage.requests:,} requests, "
            f"{format_count(usage.input_tokens)} + {format_count(usage.output_tokens)} tokens"
        )
        if spent.cost is not None:
            third.append(f", {format_cost(spent.cost)}")
        third.append("  ")
    for budget in spent.budgets[:MAX_BUDGETS] if spent is not None else ():
        style = "bold red" if budget.spent >= NEARLY * budget.limit else ""
        third.append(f"{one_line(short_title(budget.title))} per {budget.period}: {budget}  ", style)
    if query:
        third.append(f"filter: {one_line(query)}", "magenta")
    return [*lines, third] if third.plain else lines


def _counts(overview: OverviewSchema, *, paused: bool) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("agentexec ", "bold")
    line.append(f" active {overview.active:,} ", "bold cyan")
    line.append(f" running {overview.running:,}  queued {overview.queued:,}")
    if overview.oldest_queued_at is not None:
        waited = (overview.at - overview.oldest_queued_at).total_seconds()
        line.append(f"  oldest waits {format_duration(waited)}")
    if paused:
        line.append("  PAUSED", "bold yellow")
    return line


def _rates(overview: OverviewSchema, width: int) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    bars = max(10, min(len(overview.done_per_minute), (width - 44) // 2))
    for name, rates, style in (
        ("done/min", overview.done_per_minute, "green"),
        ("failed/min", overview.failed_per_minute, "red"),
    ):
        line.append(f"{name} {rates[-1] if rates else 0:,} ")
        line.append(sparkline(rates[-bars:]), style)
        line.append("  ")
    return line


def workers(overview: OverviewSchema, width: int, limit: int) -> list[Text]:
    """Return a line for each worker process; beyond `limit`, a summary and the lost and busiest ones."""
    if not overview.workers:
        text = "No worker process has reported: is `agentexec worker` running?"
        return [Text(text, "yellow", no_wrap=True, overflow="ellipsis")]
    if len(overview.workers) <= limit:
        return [_worker_line(overview, worker, width) for worker in overview.workers]
    urgent = sorted(overview.workers, key=lambda worker: (not _is_lost(overview, worker), -worker.running))
    lines = [_worker_line(overview, worker, width) for worker in urgent[: limit - 1]]
    return [_workers_summary(overview), *lines]


def _workers_summary(overview: OverviewSchema) -> Text:
    lost = sum(_is_lost(overview, worker) for worker in overview.workers)
    hosts = len({worker.host for worker in overview.workers})
    running = sum(worker.running for worker in overview.workers)
    slots = sum(worker.concurrency for worker in overview.workers)
    memory = sum(worker.rss_bytes for worker in overview.workers)
    text = f"{len(overview.workers)} worker processes" + (f", {lost} LOST" if lost else "")
    text += f", on {hosts} host(s): {running} of {slots} slots, {format_bytes(memory)}"
    return Text(text, "red" if lost else "", no_wrap=True, overflow="ellipsis")


def _worker_line(overview: OverviewSchema, worker: WorkerSchema, width: int) -> Text:
    lost = _is_lost(overview, worker)
    state = "LOST" if lost else "drains" if worker.draining else "works" if worker.running else "idle"
    age = format_duration(_age(overview, worker))
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{one_line(worker.host)[:20]} {worker.pid:>7}  {state:<6} ", "red" if lost else "")
    line.append(f"{worker.running:>3}/{worker.concurrency} tasks  cpu {worker.cpu_percent:>5.1f}%  ")
    line.append(f"{format_bytes(worker.rss_bytes):>7}  heartbeat {age} ago")
    if width > 100:
        line.append(f"  {one_line(','.join(worker.queues) or worker.queue)}")
    return line


def _age(overview: OverviewSchema, worker: WorkerSchema) -> float:
    return (overview.at - worker.seen_at).total_seconds()


def _is_lost(overview: OverviewSchema, worker: WorkerSchema) -> bool:
    return _age(overview, worker) > LOST_SECONDS


def wrap_line(line: Text, console: Console) -> list[Text]:
    """Return a line as the lines that it takes on this console."""
    if line.cell_len <= console.width:
        return [line]
    return list(line.wrap(console, console.width, overflow="fold", no_wrap=False))


def table(
    items: Sequence[ActivityListItemSchema], now: datetime, width: int, selected: int | None = None
) -> Table:
    """Return a table of tasks, with as many columns as fit."""
    found = _empty_table(width)
    for index, task in enumerate(items):
        found.add_row(*_cells(task, now, width), style="reverse" if index == selected else "")
    return found


def _empty_table(width: int) -> Table:
    found = Table(box=None, padding=(0, 1), expand=True, show_edge=False, pad_edge=False, header_style="bold")
    name_width = 10 if width < 60 else 16 if width < 110 else 26
    found.add_column("STATUS", width=8, no_wrap=True)
    found.add_column("TASK", width=name_width, no_wrap=True, overflow="ellipsis")
    if width >= 60:
        found.add_column("PROGRESS", width=14 if width < 110 else 24, no_wrap=True)
    found.add_column("TIME", width=8, no_wrap=True, justify="right")
    if width >= 130:
        found.add_column("TOKENS", width=8, no_wrap=True, justify="right")
        found.add_column("AGENT_ID", width=36, no_wrap=True)
    found.add_column("LATEST", ratio=1, no_wrap=True, overflow="ellipsis")
    return found


def _cells(task: ActivityListItemSchema, now: datetime, width: int) -> list[Text]:
    cells = [Text(task.status.value, STYLES[task.status.value]), Text(one_line(task.task_name))]
    if width >= 60:
        cells.append(progress_bar(task.percentage, task.status, 9 if width < 110 else 19))
    cells.append(Text(elapsed(task, now)))
    if width >= 130:
        cells.append(Text(format_count(task.usage.input_tokens + task.usage.output_tokens)))
        cells.append(Text(str(task.agent_id)))
    cells.append(Text(one_line(_latest(task, now))))
    return cells


def _latest(task: ActivityListItemSchema, now: datetime) -> str:
    """Return a task's latest message; of a task that may not start yet, when it does."""
    due = future_start(task.run_at, now) if task.status is Status.QUEUED else None
    latest = task.latest_log_message or ""
    return latest if due is None or due - now > FAR else f"{start_text(due, now)}  {latest}"


def progress_bar(percentage: int, status: Status, cells: int) -> Text:
    """Return a progress bar followed by its percentage."""
    full = round(cells * percentage / 100)
    bar = Text("━" * full, STYLES[status.value])
    bar.append("─" * (cells - full), "bright_black")
    bar.append(f"{percentage:>4}%")
    return bar


def sparkline(numbers: Sequence[int]) -> str:
    """Return a row of bars, the highest for the largest number."""
    largest = max(numbers, default=0) or 1
    top = len(BARS) - 1
    return "".join(BARS[max(1, round(number / largest * top)) if number else 0] for number in numbers)


def elapsed(task: ActivityListItemSchema, now: datetime) -> str:
    """Return the time a task ran or has been running; in parentheses, the time it has been queued."""
    if task.status is Status.QUEUED:
        return f"({format_duration((now - task.created_at).total_seconds())})"
    if task.started_at is None:
        return ""
    return format_duration(((task.finished_at or now) - task.started_at).total_seconds())


def format_count(number: int) -> str:
    """Return a number in about five characters."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def format_cost(amount: float) -> str:
    """Return an amount in dollars, with four decimals below one dollar."""
    return f"about ${amount:,.2f}" if amount >= 1 else f"about ${amount:.4f}"


def format_bytes(size: int) -> str:
    """Return a size in MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

"""How the monitor looks: header, workers, table, footer, each for a given width. All text of tasks is made harmless."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentexec.activity.queries.overview import LOST_SECONDS, OverviewSchema, SpentSchema, WorkerSchema
from agentexec.activity.schemas import ActivityListItemSchema
from agentexec.cli.output import one_line
from agentexec.task import Status

BARS = "▁▂▃▄▅▆▇█"
STYLES = {
    "queued": "yellow",
    "running": "cyan",
    "complete": "green",
    "error": "red",
    "canceled": "bright_black",
}


def header(
    seen: OverviewSchema, spent: SpentSchema | None, width: int, *, paused: bool, query: str
) -> list[Text]:
    """Two or three lines: numbers, rates, what was spent, the filter."""
    first = Text(no_wrap=True, overflow="ellipsis")
    first.append("agentexec ", "bold")
    first.append(f" active {seen.active:,} ", "bold cyan")
    first.append(f" running {seen.running:,}  queued {seen.queued:,}")
    if seen.oldest_queued_at is not None:
        first.append(f"  oldest waits {format_duration((seen.at - seen.oldest_queued_at).total_seconds())}")
    if paused:
        first.append("  PAUSED", "bold yellow")
    second = Text(no_wrap=True, overflow="ellipsis")
    lines = max(10, min(len(seen.done_per_minute), (width - 44) // 2))
    for name, numbers, style in (
        ("done/min", seen.done_per_minute, "green"),
        ("failed/min", seen.failed_per_minute, "red"),
    ):
        second.append(f"{name} {numbers[-1] if numbers else 0:,} ")
        second.append(sparkline(numbers[-lines:]), style)
        second.append("  ")
    found = [first, second]
    third = Text(no_wrap=True, overflow="ellipsis")
    if spent is not None and spent.usage.requests:
        used = spent.usage
        third.append(
            f"last {spent.minutes} min: {used.requests:,} requests, "
            f"{format_count(used.input_tokens)} + {format_count(used.output_tokens)} tokens"
        )
        if spent.cost is not None:
            third.append(f", {format_cost(spent.cost)}")
        third.append("  ")
    if query:
        third.append(f"filter: {one_line(query)}", "magenta")
    return [*found, third] if third.plain else found


def workers(seen: OverviewSchema, width: int, most: int) -> list[Text]:
    """A line for each worker process; of more than `most` the lost and the busiest, and one line for all."""
    if not seen.workers:
        text = "No worker process has reported: is `agentexec worker` running?"
        return [Text(text, "yellow", no_wrap=True, overflow="ellipsis")]
    if len(seen.workers) <= most:
        return [_worker(seen, one, width) for one in seen.workers]
    urgent = sorted(seen.workers, key=lambda one: (not _is_lost(seen, one), -one.running))
    lost = sum(_is_lost(seen, one) for one in seen.workers)
    hosts = len({one.host for one in seen.workers})
    running = sum(one.running for one in seen.workers)
    room = sum(one.concurrency for one in seen.workers)
    memory = sum(one.rss_bytes for one in seen.workers)
    text = f"{len(seen.workers)} worker processes" + (f", {lost} LOST" if lost else "")
    text += f", on {hosts} host(s): {running} of {room} slots, {size(memory)}"
    every = Text(text, "red" if lost else "")
    every.no_wrap, every.overflow = True, "ellipsis"
    return [every, *(_worker(seen, one, width) for one in urgent[: most - 1])]


def _worker(seen: OverviewSchema, one: WorkerSchema, width: int) -> Text:
    lost = _is_lost(seen, one)
    state = "LOST" if lost else "drains" if one.draining else "works" if one.running else "idle"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{one_line(one.host)[:20]} {one.pid:>7}  {state:<6} ", "red" if lost else "")
    text.append(f"{one.running:>3}/{one.concurrency} tasks  cpu {one.cpu_percent:>5.1f}%  ")
    text.append(f"{size(one.rss_bytes):>7}  heartbeat {format_duration(_age(seen, one.seen_at))} ago")
    if width > 100:
        text.append(f"  {one_line(one.queue)}")
    return text


def wrap_line(text: Text, console: Console) -> list[Text]:
    """A line in as many lines as it takes on this console."""
    if text.cell_len <= console.width:
        return [text]
    return list(text.wrap(console, console.width, overflow="fold", no_wrap=False))


def table(
    items: Sequence[ActivityListItemSchema], now: datetime, width: int, selected: int | None = None
) -> Table:
    """Tasks, as many columns as fit."""
    found = Table(box=None, padding=(0, 1), expand=True, show_edge=False, pad_edge=False, header_style="bold")
    found.add_column("STATUS", width=8, no_wrap=True)
    found.add_column(
        "TASK", width=10 if width < 60 else 16 if width < 110 else 26, no_wrap=True, overflow="ellipsis"
    )
    if width >= 60:
        found.add_column("PROGRESS", width=14 if width < 110 else 24, no_wrap=True)
    found.add_column("TIME", width=8, no_wrap=True, justify="right")
    if width >= 130:
        found.add_column("TOKENS", width=8, no_wrap=True, justify="right")
        found.add_column("AGENT_ID", width=36, no_wrap=True)
    found.add_column("LATEST", ratio=1, no_wrap=True, overflow="ellipsis")
    for number, one in enumerate(items):
        cells = [Text(one.status.value, STYLES[one.status.value]), Text(one_line(one.agent_type))]
        if width >= 60:
            cells.append(progress_bar(one.percentage, one.status, 9 if width < 110 else 19))
        cells.append(Text(elapsed(one, now)))
        if width >= 130:
            cells.append(Text(format_count(one.usage.input_tokens + one.usage.output_tokens)))
            cells.append(Text(str(one.agent_id)))
        cells.append(Text(one_line(one.latest_log_message)))
        found.add_row(*cells, style="reverse" if number == selected else "")
    return found


def progress_bar(percentage: int, status: Status, cells: int) -> Text:
    """A progress bar with its number."""
    full = round(cells * percentage / 100)
    text = Text("━" * full, STYLES[status.value])
    text.append("─" * (cells - full), "bright_black")
    text.append(f"{percentage:>4}%")
    return text


def sparkline(numbers: Sequence[int]) -> str:
    """A row of bars, the highest for the largest number."""
    most = max(numbers, default=0) or 1
    return "".join(BARS[0 if not one else max(1, round(one / most * (len(BARS) - 1)))] for one in numbers)


def elapsed(one: ActivityListItemSchema, now: datetime) -> str:
    """How long it ran, or has run, or, in brackets, has waited."""
    if one.started_at is None or one.status is Status.QUEUED:
        return (
            f"({format_duration((now - one.created_at).total_seconds())})"
            if one.status is Status.QUEUED
            else ""
        )
    return format_duration(((one.finished_at or now) - one.started_at).total_seconds())


def format_duration(seconds: float) -> str:
    """A time in two units at most: 5s, 3m12s, 2h05m, 4d03h."""
    whole = max(0, int(seconds))
    for unit, smaller, one, other in ((86_400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= unit:
            return f"{whole // unit}{one}{whole % unit // smaller:02d}{other}"
    return f"{whole}s"


def format_count(number: int) -> str:
    """A number in at most five characters."""
    for unit, name in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return str(number)


def format_cost(amount: float) -> str:
    """An amount with cents, a small one with parts of them."""
    return f"about {amount:,.2f} dollars" if amount >= 1 else f"about {amount:.4f} dollars"


def size(amount: int) -> str:
    """Bytes in MB or GB."""
    return f"{amount / 1e9:.1f} GB" if amount >= 1e9 else f"{amount / 1e6:.0f} MB"


def _age(seen: OverviewSchema, at: datetime) -> float:
    return (seen.at - at).total_seconds()


def _is_lost(seen: OverviewSchema, one: WorkerSchema) -> bool:
    return _age(seen, one.seen_at) > LOST_SECONDS

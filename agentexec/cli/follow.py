"""The progress of one task: a bar on a terminal, lines elsewhere, always on standard error."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import agentexec as ax
from agentexec.cli.common import one_line


def follow(task: ax.Task, timeout: float | None) -> None:
    """Show what a task does until it has ended. Raises TimeoutError after `timeout` seconds."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.print(f"Task {task.agent_id}", soft_wrap=True)
        _read(task, timeout, lambda share, message: console.print(f"{share:>3}% {message}", soft_wrap=True))
        return
    columns = (
        TextColumn("{task.percentage:>3.0f}%"),
        BarColumn(30),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        shown = progress.add_task("", total=100)
        _read(
            task,
            timeout,
            lambda share, message: progress.update(shown, completed=share, description=message),
        )


def _read(task: ax.Task, timeout: float | None, show: Callable[[int, str], None]) -> None:
    """Read the stream in a thread: a task may say nothing for longer than one wants to wait."""
    errors: list[BaseException] = []

    stream = ax.activity.stream(task.agent_id, deltas=False)

    def read() -> None:
        share = 0
        try:
            for event in stream:
                if "message" in event.data:
                    given = event.data.get("percentage")
                    share = share if given is None else int(given)
                    show(share, one_line(event.data["message"]))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read, name="agentexec-follow", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        stream.close()
        raise TimeoutError(f"Task {task.agent_id} has not ended after {timeout:g} s; it goes on.")
    if errors:
        raise errors[0]

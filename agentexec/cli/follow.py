"""Progress of one task: a bar on a terminal, lines elsewhere, always on standard error."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import agentexec as ax
from agentexec.cli.output import one_line
from agentexec.values.presentation import Presenter


def make_console() -> Console:
    """Return a console on standard error that prints a message as it is: neither markup nor `:smile:` is special."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def follow(task: ax.Task, timeout: float | None) -> None:
    """Show the progress of a task until it ends. Raises TimeoutError after `timeout` seconds."""
    console = make_console()
    if not console.is_terminal:
        console.print(f"Task {task.agent_id}", soft_wrap=True)
        _read(
            task,
            timeout,
            lambda percentage, message: console.print(f"{percentage:>3}% {message}", soft_wrap=True),
        )
        return
    columns = (
        TextColumn("{task.percentage:>3.0f}%"),
        BarColumn(30),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=100)
        _read(
            task,
            timeout,
            lambda percentage, message: progress.update(bar, completed=percentage, description=message),
        )


def _read(task: ax.Task, timeout: float | None, show: Callable[[int, str], None]) -> None:
    """Read the stream in a thread, since a task may be silent for longer than the timeout."""
    errors: list[BaseException] = []

    presenter = Presenter(ax.CONF.secrets)
    stream = ax.activity.stream(task.agent_id, deltas=False)

    def read() -> None:
        percentage = 0
        try:
            for event in stream:
                if "message" in event.data:
                    reported = event.data.get("percentage")
                    percentage = percentage if reported is None else int(reported)
                    show(percentage, one_line(presenter.text(event.data["message"])))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read, name="agentexec-follow", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        stream.close()
        raise TimeoutError(f"Task {task.agent_id} has not ended after {timeout:g} s; it continues.")
    if errors:
        raise errors[0]

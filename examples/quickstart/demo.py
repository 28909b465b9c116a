"""Demo of the quickstart: migrate, start workers, enqueue research, watch it, print the results, stop the workers.

Everything happens in a temporary folder with the defaults of agentexec: SQLite and no Redis. If OPENAI_API_KEY is set,
the agents use OpenAI (or OPENAI_BASE_URL), otherwise a scripted model server on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

import psutil
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from sqlalchemy.orm import Session

import agentexec as ax

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from context import ResearchContext  # noqa: E402 - found next to this file, however it is started
from mock_openai import MockOpenAI  # noqa: E402
from scenario import company_names, script  # noqa: E402

TIMEOUT = 120.0
"""Seconds within which all tasks must end."""

LOG = Path("worker.log")

STYLES = {"complete": "green", "error": "red", "canceled": "red", "running": "cyan"}

console = Console(highlight=False)


class Row(NamedTuple):
    """Task as a row of the table."""

    company: str
    status: str
    percentage: int
    message: str


class DemoError(Exception):
    """The demo failed. `log`: a file with the details."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(f"{message}\n{log.read_text()}" if log else message)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run agentexec's quickstart in a temporary folder.")
    parser.add_argument("--tasks", type=positive, default=5, help="research tasks to enqueue (default 5)")
    parser.add_argument("--workers", type=positive, default=2, help="worker processes (default 2)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    try:
        with ExitStack() as opened:
            enter_folder(opened.enter_context(tempfile.TemporaryDirectory(prefix="agentexec-demo-")))
            companies = company_names(options.tasks)
            migration = start_migration()
            choose_model(opened, companies)
            finish(migration)
            worker = opened.enter_context(running_worker(options.workers))
            failed = asyncio.run(research(companies, worker))
            stop(worker)
    except DemoError as error:
        console.print(f"[red]The demo failed:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Exit on SIGTERM as on an error, so that the worker is stopped."""
    sys.exit(143)


def enter_folder(folder: str) -> None:
    """Change to a folder, and remove settings from the environment, so that the defaults hold."""
    os.chdir(folder)
    for name in list(os.environ):
        if name.startswith("AGENTEXEC_") or name in ("REDIS_URL", "DATABASE_URL"):
            del os.environ[name]


def choose_model(opened: ExitStack, companies: Sequence[str]) -> None:
    if os.environ.get("OPENAI_API_KEY"):
        console.print(f"The agents use {os.environ.get('OPENAI_BASE_URL') or 'OpenAI'}.")
        return
    server = opened.enter_context(MockOpenAI(latency=0.15))
    for number, company in enumerate(companies):
        server.script(script(pause=0.15 + 0.1 * (number % 5)), when=company)
    os.environ.update(
        OPENAI_BASE_URL=server.base_url,
        OPENAI_API_KEY="none",
        OPENAI_AGENTS_DISABLE_TRACING="1",  # traces would go to OpenAI, which does not know this key
    )
    console.print(
        "No OPENAI_API_KEY is set: the agents talk to a scripted model server on this machine (llmock)."
    )


def start_migration() -> subprocess.Popen[str]:
    """Start `agentexec migrate`, which creates the tables."""
    command = [sys.executable, "-m", "agentexec", "migrate"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(migration: subprocess.Popen[str]) -> None:
    output, _ = migration.communicate()
    if migration.returncode:
        raise DemoError(f"agentexec migrate ended with code {migration.returncode}.\n{output}")


@contextmanager
def running_worker(processes: int) -> Generator[subprocess.Popen[bytes]]:
    """Run `agentexec worker` on the worker module; kill it and its processes if it is still running at the end."""
    arguments = ["worker", str(HERE / "worker.py"), "--workers", str(processes)]
    with LOG.open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-m", "agentexec", *arguments], stdout=log, stderr=log)
    try:
        yield worker
    finally:
        if worker.poll() is None:
            family = [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]
            for process in family:
                process.kill()
            worker.wait()


async def research(companies: Sequence[str], worker: subprocess.Popen[bytes]) -> int:
    """Enqueue a task for each company, show them until all have ended, and return how many failed."""
    tasks = {company: await ax.enqueue("research", ResearchContext(company=company)) for company in companies}
    waiting = asyncio.create_task(ax.gather(*tasks.values(), timeout=TIMEOUT, return_exceptions=True))
    with watching() as show:
        while not waiting.done():
            if worker.poll() is not None:
                waiting.cancel()
                raise DemoError(f"the worker ended with code {worker.returncode}.", log=LOG)
            show(rows(tasks))
            await asyncio.wait([waiting], timeout=0.1)
        show(rows(tasks))
    try:
        results = waiting.result()
    except TimeoutError as error:
        raise DemoError(str(error), log=LOG) from None
    for company, result in zip(companies, results, strict=True):
        failed = isinstance(result, Exception)
        # A traceback follows the first line of an error.
        text = str(result).partition("\n")[0] if failed else str(result)
        console.print(f"\n[{'red' if failed else 'bold'}]{company}[/]\n{escape(text)}")
    return sum(isinstance(result, Exception) for result in results)


def rows(tasks: dict[str, ax.Task]) -> list[Row]:
    """Return a row with the state of each task."""
    with Session(ax.get_engine()) as db:
        pages = [
            ax.activity.list(db, page=number + 1, page_size=100) for number in range(-(-len(tasks) // 100))
        ]
    items = {item.agent_id: item for page in pages for item in page.items}
    return [
        Row(company, item.status, item.percentage, item.latest_log_message or "")
        for company, task in tasks.items()
        if (item := items.get(task.agent_id))
    ]


@contextmanager
def watching() -> Generator[Callable[[list[Row]], None]]:
    """Yield a function that shows rows: a live table in a terminal, elsewhere a line for each change."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda rows: live.update(table(rows), refresh=True)
        return
    shown: set[Row] = set()

    def show(rows: list[Row]) -> None:
        for row in rows:
            if row not in shown:
                shown.add(row)
                line = f"{row.company:<12} {row.status:<9} {row.percentage:>3} %  {row.message}"
                console.print(line, markup=False, soft_wrap=True)

    yield show


def table(rows: list[Row]) -> Table:
    table = Table("Company", "Status", "Progress", "", "Message", box=None, pad_edge=False)
    for row in rows:
        status = f"[{STYLES.get(row.status, 'default')}]{row.status}[/]"
        bar = ProgressBar(total=100, completed=row.percentage, width=20)
        table.add_row(row.company, status, bar, f"{row.percentage} %", escape(row.message))
    return table


def stop(worker: subprocess.Popen[bytes]) -> None:
    """Stop the worker as an operator would, and check that no process is left."""
    family = psutil.Process(worker.pid).children(recursive=True)
    worker.terminate()
    try:
        code = worker.wait(20)
    except subprocess.TimeoutExpired:
        raise DemoError("the worker did not stop within 20 seconds of SIGTERM.", log=LOG) from None
    _, orphans = psutil.wait_procs(family, timeout=2)
    if code or orphans:
        raise DemoError(f"the worker ended with code {code} and left {len(orphans)} process(es).", log=LOG)


if __name__ == "__main__":
    sys.exit(main())

"""The whole application in one command: the database, the page, the web app, a worker, and a model.

    python run.py

Without OPENAI_API_KEY the agents talk to a scripted model on this machine. Ctrl-C stops everything. The database is
agents.db in this folder, unless DATABASE_URL names another.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PAGE = HERE / "ui"
PACKAGE = REPOSITORY / "ui"

sys.path.insert(0, str(HERE.parent))

from mock_openai import MockOpenAI, Step, call, say  # noqa: E402 - the mock is beside this folder

STARTUP_SECONDS = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the example application.")
    parser.add_argument("--host", default="127.0.0.1", help="address of the web app (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port of the web app (default 8000; 0: a free one)"
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="seconds that the scripted model takes to answer"
    )
    parser.add_argument("--no-page", action="store_true", help="do not build the page")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    # The package `app` for every process, wherever this is started from.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("DATABASE_URL", f"sqlite:///{HERE / 'agents.db'}")
    if not options.no_page:
        build_page()
    run("alembic", "--config", str(HERE / "alembic.ini"), "upgrade", "head")
    with ExitStack() as opened:
        choose_model(opened, options.pace)
        port = options.port or free_port(options.host)
        web = ["uvicorn", "app.main:app", "--host", options.host, "--port", str(port)]
        processes = {
            "web app": start(opened, *web, "--timeout-graceful-shutdown", "3", "--log-level", "warning"),
            "worker": start(opened, "agentexec", "worker", "app.worker", "--workers", str(options.workers)),
        }
        url = f"http://{options.host}:{port}/"
        wait_for_worker(url, processes)
        print(f"The application is at {url} (its API at {url}docs). Ctrl-C stops it.", flush=True)
        return watch(processes)


def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Exit on SIGTERM as on an error, so that all processes are stopped."""
    sys.exit(143)


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return listener.getsockname()[1]


def build_page() -> None:
    """Build the npm package and the page, if they have changed since they were built; Node is needed for this alone."""
    if not shutil.which("npm"):
        print("Without Node 20 there is no page: the API is described at /docs.", flush=True)
        return
    for folder in (PACKAGE, PAGE):
        if is_built(folder):
            continue
        if not (folder / "node_modules").is_dir():
            npm(folder, "ci", "--no-audit", "--no-fund", "--loglevel=error")
        npm(folder, "run", "--silent", "build")


def is_built(folder: Path) -> bool:
    """Return True if the built files are newer than the sources."""
    built = folder / "dist" / ("index.js" if folder == PACKAGE else "index.html")
    sources = [*(folder / "src").rglob("*.*"), folder / "package.json"]
    if folder == PAGE:
        sources.append(PACKAGE / "dist" / "index.js")
    return built.exists() and built.stat().st_mtime >= max(file.stat().st_mtime for file in sources)


def npm(folder: Path, *arguments: str) -> None:
    print(f"npm {arguments[0]} in {folder.relative_to(REPOSITORY)}", flush=True)
    subprocess.run(["npm", *arguments], cwd=folder, check=True)


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", program, *arguments], cwd=HERE, check=True)


def start(opened: ExitStack, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", program, *arguments], cwd=HERE)
    opened.callback(stop, process)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process as an operator would; the worker ends what it started."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_worker(url: str, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait until the web app answers and knows of a worker; both take a few seconds to import everything."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback bypasses any proxy
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes.values()):
            return  # watch() tells which
        # The web app refuses connections, or hangs, until it is up.
        with suppress(OSError), opener.open(f"{url}api/workers", timeout=5) as response:
            if json.load(response):
                return
        time.sleep(0.1)
    raise SystemExit(f"The application did not start within {STARTUP_SECONDS:.0f} seconds.")


def watch(processes: dict[str, subprocess.Popen[bytes]]) -> int:
    """Wait until a process ends or Ctrl-C is pressed, and return the exit code."""
    try:
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    print(f"The {name} ended with code {process.returncode}.", file=sys.stderr)
                    return 1
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0


def choose_model(opened: ExitStack, pace: float) -> None:
    """Use OpenAI if there is a key, else a scripted model on this machine."""
    if os.environ.get("OPENAI_API_KEY"):
        print(f"The agents use {os.environ.get('OPENAI_BASE_URL') or 'OpenAI'}.")
        return
    server = opened.enter_context(MockOpenAI(chunk_delay=0.05 * pace))
    for steps, when in scripts():
        server.script([step.after(pace) for step in steps], when=when)
    os.environ.update(
        OPENAI_BASE_URL=server.base_url,
        OPENAI_API_KEY="none",
        OPENAI_AGENTS_DISABLE_TRACING="1",  # traces would go to OpenAI, which does not know this key
    )
    print("No OPENAI_API_KEY is set: the agents talk to a scripted model on this machine (llmock).")


def scripts() -> list[tuple[list[Step], str]]:
    """Return the answers of the model, each with a text of the instructions; `{prompt}` is the name of the company."""
    report = "{prompt} is growing faster than both of its competitors, and its figures are sound."
    return [
        (
            [
                call("report_status", message="Gathering financials", percentage=15),
                call("look_up_financials", company="{prompt}"),
                call("report_status", message="Looking for competitors", percentage=40),
                call("find_competitors", company="{prompt}"),
                call("report_status", message="Writing the report", percentage=70),
                call("publish_report", company="{prompt}", text=report),
                call("report_status", message="Summing up", percentage=90),
                say(f"{report} The report went to a person for approval before it was published."),
            ],
            "its figures and its competitors",
        ),
        ([say("The brand is well known, and trusted by those who buy twice.")], "how the brand is seen"),
        ([say("The market is worth four billion a year, and grows by a tenth.")], "how big the market is"),
        (
            [
                call("publish_report", company="{prompt}", text="{prompt}: its figures are sound."),
                say("The report about {prompt} went to a person, who has decided what becomes of it."),
            ],
            "Publish ",
        ),
        (
            [
                call("look_up_financials", company="{prompt}"),
                say(
                    "You asked: {prompt} The figures are sound, and revenue has grown by some percent within a year."
                ),
            ],
            "questions about companies",
        ),
        ([say("Invest. The brand is trusted, and its market grows.")], "whether to invest"),
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

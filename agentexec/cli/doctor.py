"""`agentexec doctor`: is everything there that a worker needs, and what is to be done."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import typer

import agentexec as ax
from agentexec.cli.common import AsJson
from agentexec.cli.version import versions
from agentexec.errors import AgentexecError
from agentexec.redaction import redact

State = Literal["ok", "warn", "fail"]
SLOW_MS = 20.0
"""Milliseconds of a round trip above which an answer is called slow: a task takes about ten of them."""

TRIES = 5
MODULE_SECONDS = 60.0


class Finding(NamedTuple):
    """What one check has found."""

    name: str
    state: State
    text: str


def run(
    module: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE[:ATTR]", help="Module with your pool. Default: AGENTEXEC_WORKER_MODULE."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings, database, schema, Redis, worker module, workers and keys, and say what to do.

    The exit code is 1 if something fails.
    """
    found: list[Finding] = []
    for finding in _findings(module or ax.CONF.worker_module):
        finding = finding._replace(text=redact(finding.text, ax.CONF.secrets))
        found.append(finding)
        if not as_json:
            typer.echo(f"{finding.state:<5} {finding.name:<10} {finding.text}")
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found]))
    if any(one.state == "fail" for one in found):
        raise typer.Exit(1)


def _findings(module: str | None) -> Iterator[Finding]:
    yield Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in versions().items()))
    # Imported on use: the module reads the settings, and a bad one must not keep --help from being told.
    config = importlib.import_module("agentexec.config")
    given = [
        config.env_var_name(name) for name in config.Settings.model_fields if name in ax.CONF.model_fields_set
    ]
    yield Finding("settings", "ok", ", ".join(given) or "all defaults")
    yield from _checked("database", _database)
    yield from _checked("schema", _schema)
    yield from _checked("queue", _queue)
    yield from _checked("workers", _workers)
    yield from _checked("module", lambda: _module(module))
    yield from _keys()


def _checked(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check whose error is a finding."""
    try:
        yield from check()
    except AgentexecError as error:
        yield Finding(name, "fail", str(error))
    except Exception as error:
        yield Finding(name, "fail", f"{type(error).__name__}: {error}")


def _database() -> Iterator[Finding]:
    database, urls = (
        importlib.import_module("agentexec.db.engine"),
        importlib.import_module("agentexec.db.urls"),
    )
    transactions = importlib.import_module("agentexec.db.transactions")
    engine = ax.get_engine()
    times: list[float] = []
    with transactions.reading(engine) as connection:
        for _ in range(TRIES):
            start = time.perf_counter()
            connection.exec_driver_sql("SELECT 1")
            times.append(1000 * (time.perf_counter() - start))
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
    text = f"{engine.dialect.name} {version} at {urls.safe_url(engine.url)}"
    yield _timed("database", text, sorted(times)[TRIES // 2])
    database.require_shareable(engine)


def _schema() -> Iterator[Finding]:
    schema = importlib.import_module("agentexec.schema.tables")
    schema.check_schema(ax.get_engine())
    yield Finding("schema", "ok", "up to date")


def _queue() -> Iterator[Finding]:
    backend = importlib.import_module("agentexec.runtime").RUNTIME.backend
    start = time.perf_counter()
    backend.ping()
    first = 1000 * (time.perf_counter() - start)
    start = time.perf_counter()
    depth = sum(backend.depth(ax.CONF.queue_name))
    took = min(first, 1000 * (time.perf_counter() - start))
    name = ax.CONF.backend_module
    about = f"{depth} task(s) in {ax.CONF.queue_name}, by {name}"
    describe = getattr(backend, "describe", None)
    if describe is not None:
        about += f", {describe()}"
    yield _timed("queue", about, took)


def _workers() -> Iterator[Finding]:
    common = importlib.import_module("agentexec.cli.common")
    overview = importlib.import_module("agentexec.activity.queries.overview")
    with common.session() as db:
        seen = ax.activity.overview(db, 1)
    here = [one for one in seen.workers if (seen.at - one.seen_at).total_seconds() < overview.LOST_SECONDS]
    mine = [one for one in here if one.queue == ax.CONF.queue_name]
    if not mine:
        yield Finding("workers", "warn", f"none serves {ax.CONF.queue_name}: start `agentexec worker`.")
        return
    hosts = len({one.host for one in mine})
    yield Finding("workers", "ok", f"{len(mine)} process(es) on {hosts} host(s) serve {ax.CONF.queue_name}")


LOAD = """
import json, sys
from agentexec.errors import AgentexecError
from agentexec.worker.target import Target
try:
    pool = Target.parse(sys.argv[1]).load()
    print("\\n" + json.dumps({"tasks": sorted(one.name for one in pool.registry)}))
except AgentexecError as error:
    print("\\n" + json.dumps({"error": str(error)}))
"""
"""Loaded in a process of its own, as by a worker: what a module does to its process stays there."""


def _module(module: str | None) -> Iterator[Finding]:
    if not module:
        yield Finding("module", "warn", "none is named: give it here or as AGENTEXEC_WORKER_MODULE.")
        return
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", LOAD, module], capture_output=True, text=True, timeout=MODULE_SECONDS
        )
    except subprocess.TimeoutExpired:
        yield Finding("module", "fail", f"{module} is not loaded after {MODULE_SECONDS:g} s.")
        return
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        told: dict[str, Any] = json.loads(last)
    except ValueError:
        told = {
            "error": f"{module} cannot be loaded: {(done.stderr.strip().splitlines() or ['it exits'])[-1]}"
        }
    if "error" in told:
        yield Finding("module", "fail", told["error"])
    elif not told["tasks"]:
        yield Finding("module", "warn", f"{module} has no tasks: add one with @pool.task.")
    else:
        yield Finding("module", "ok", f"{module} has the tasks {', '.join(told['tasks'])}")


def _keys() -> Iterator[Finding]:
    if os.environ.get("OPENAI_API_KEY"):
        yield Finding("keys", "ok", "OPENAI_API_KEY is set here")
    else:
        yield Finding("keys", "warn", "OPENAI_API_KEY is not set here; workers with OpenAI's models need it.")


def _timed(name: str, text: str, milliseconds: float) -> Finding:
    text = f"{text}, {milliseconds:.1f} ms"
    if milliseconds > SLOW_MS:
        return Finding(name, "warn", f"{text}: slow; bring it nearer to the workers.")
    return Finding(name, "ok", text)

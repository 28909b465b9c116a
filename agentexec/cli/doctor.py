"""`agentexec doctor`: checks of everything a worker needs, each with what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import typer

import agentexec as ax
from agentexec.cli.options import AsJson
from agentexec.cli.output import printable
from agentexec.cli.serving import serving_workers
from agentexec.cli.version import versions
from agentexec.errors import AgentexecError
from agentexec.redaction import redact

State = Literal["ok", "warn", "fail"]
SLOW_MS = 20.0
"""Milliseconds above which a round trip is reported as slow: a task takes about ten of them."""

TRIES = 5
"""Round trips to the database, of which the median is reported."""

MODULE_SECONDS = 60.0
"""Seconds that the worker module may take to load."""


class Finding(NamedTuple):
    """Outcome of one check."""

    name: str
    state: State
    text: str


def run(
    module: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE[:ATTR]",
            help="Module with your pool. Default: AGENTEXEC_WORKER_MODULE.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check all that a worker needs, and say what to do.

    Checks the settings, database, schema, queue, workers, worker module and API key. The exit code is 1 if a check
    fails.
    """
    findings: list[Finding] = []
    for finding in _findings(module or ax.CONF.worker_module):
        finding = finding._replace(text=redact(finding.text, ax.CONF.secrets))
        findings.append(finding)
        if not as_json:
            typer.echo(f"{finding.state:<5} {finding.name:<10} {printable(finding.text)}")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _findings(module: str | None) -> Iterator[Finding]:
    yield Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in versions().items()))
    # Imported on use: the module reads the settings, and --help must work with a bad one too.
    from agentexec.config import Settings, env_var_name, unknown_variables

    explicit = [env_var_name(name) for name in Settings.model_fields if name in ax.CONF.model_fields_set]
    yield Finding("settings", "ok", ", ".join(explicit) or "all defaults")
    for sentence in unknown_variables():
        yield Finding("settings", "warn", sentence)
    yield from _checked("database", _database)
    yield from _checked("schema", _schema)
    yield from _checked("queue", _queue)
    yield from _checked("workers", _workers)
    yield from _checked("module", lambda: _module(module))
    yield from _keys()


def _checked(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Run a check, and report its error as a finding."""
    try:
        yield from check()
    except AgentexecError as error:
        yield Finding(name, "fail", str(error))
    except Exception as error:
        yield Finding(name, "fail", f"{type(error).__name__}: {error}")


def _database() -> Iterator[Finding]:
    from agentexec.db.engine import require_shareable, server_name
    from agentexec.db.pooler import pooling_of
    from agentexec.db.transactions import reading
    from agentexec.db.urls import safe_url

    engine = ax.get_engine()
    times: list[float] = []
    with reading(engine) as connection:
        for _ in range(TRIES):
            start = time.perf_counter()
            connection.exec_driver_sql("SELECT 1")
            times.append(1000 * (time.perf_counter() - start))
        server = server_name(connection)
    text = f"{server} at {safe_url(engine.url)}"
    if not pooling_of(engine).keeps_session:
        text += " through a pooler in transaction mode"
    yield _timed("database", text, sorted(times)[TRIES // 2])
    require_shareable(engine)


def _schema() -> Iterator[Finding]:
    from agentexec.schema.tables import check_schema

    check_schema(ax.get_engine())
    yield Finding("schema", "ok", "up to date")


def _queue() -> Iterator[Finding]:
    from agentexec.runtime import RUNTIME

    backend = RUNTIME.backend
    start = time.perf_counter()
    backend.ping()
    first = 1000 * (time.perf_counter() - start)
    start = time.perf_counter()
    depth = sum(backend.depth(ax.CONF.queue_name))
    # The first call also connects.
    took = min(first, 1000 * (time.perf_counter() - start))
    text = f"{depth} task(s) in {ax.CONF.queue_name}, kept by {ax.CONF.backend_module}"
    describe = getattr(backend, "describe", None)
    if describe is not None:
        text += f", {describe()}"
    yield _timed("queue", text, took)


def _workers() -> Iterator[Finding]:
    serving = serving_workers(ax.CONF.queue_name)
    if not serving:
        yield Finding("workers", "warn", f"none serves {ax.CONF.queue_name}: start `agentexec worker`.")
        return
    hosts = len({worker.host for worker in serving})
    text = f"{len(serving)} process(es) on {hosts} host(s) serve {ax.CONF.queue_name}"
    yield Finding("workers", "ok", text)


LOAD = """
import json, sys
from agentexec.errors import AgentexecError
from agentexec.worker.target import Target
try:
    pool = Target.parse(sys.argv[1]).load()
    print("\\n" + json.dumps({"tasks": sorted(task.name for task in pool.registry)}))
except AgentexecError as error:
    print("\\n" + json.dumps({"error": str(error)}))
"""
"""Program that loads the module in its own process, as a worker does, to contain the module's side effects."""


def _module(module: str | None) -> Iterator[Finding]:
    if not module:
        yield Finding("module", "warn", "none given: name it as an argument or in AGENTEXEC_WORKER_MODULE.")
        return
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", LOAD, module], capture_output=True, text=True, timeout=MODULE_SECONDS
        )
    except subprocess.TimeoutExpired:
        yield Finding("module", "fail", f"{module} did not load within {MODULE_SECONDS:g} s.")
        return
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        answer: dict[str, Any] = json.loads(last)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["it exits"])[-1]
        answer = {"error": f"Cannot load {module}: {reason}"}
    if "error" in answer:
        yield Finding("module", "fail", answer["error"])
    elif not answer["tasks"]:
        yield Finding("module", "warn", f"{module} has no tasks: add one with @pool.task.")
    else:
        yield Finding("module", "ok", f"{module} has the tasks {', '.join(answer['tasks'])}")


def _keys() -> Iterator[Finding]:
    if os.environ.get("OPENAI_API_KEY"):
        yield Finding("keys", "ok", "OPENAI_API_KEY is set here")
    else:
        yield Finding(
            "keys", "warn", "OPENAI_API_KEY is not set here; workers that use OpenAI models need it."
        )


def _timed(name: str, text: str, milliseconds: float) -> Finding:
    text = f"{text}, {milliseconds:.1f} ms"
    if milliseconds > SLOW_MS:
        return Finding(name, "warn", f"{text}: slow; move it closer to the workers.")
    return Finding(name, "ok", text)

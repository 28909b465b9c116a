"""Checks of everything a worker needs, for `agentexec doctor`.

With a module of the user they run in a process of their own, which imports the module and uses its settings and database,
as a worker does: a module that ends the process, or hangs, ends this one only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn

import agentexec as ax
from agentexec.cli.app_module import announce_backend, load, naming_module, require_database, say
from agentexec.cli.database import session
from agentexec.cli.serving import serving_workers
from agentexec.cli.version import versions
from agentexec.errors import AgentexecError, SchemaError
from agentexec.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy import Engine

State = Literal["ok", "warn", "fail"]
SLOW_MS = 20.0
"""Milliseconds above which a round trip is reported as slow: a task takes about ten of them."""

TRIES = 5
"""Round trips to the database, of which the median is reported."""


class Finding(NamedTuple):
    """Outcome of one check."""

    name: str
    state: State
    text: str


def findings(module: str | None, *, given: bool) -> Iterator[Finding]:
    """Run all checks in this process, and yield what they find, without secrets.

    Args:
        module: The user's module, which is imported.
        given: True if the command line names it, False if the settings do.
    """
    for finding in _findings(module, given):
        yield finding._replace(text=redact(finding.text, ax.CONF.secrets))


def _findings(module: str | None, given: bool) -> Iterator[Finding]:
    yield from _checked("module", lambda: _module(module, given))
    yield Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in versions().items()))
    # Imported on use: the module reads the settings, and --help must work with a bad one too.
    from agentexec.arguments.variables import env_var_name
    from agentexec.config import SQL_BACKEND, Settings
    from agentexec.worker.unknown_variables import unknown_variables

    explicit = [env_var_name(name) for name in Settings.model_fields if name in ax.CONF.model_fields_set]
    yield Finding("settings", "ok", ", ".join(explicit) or "all defaults")
    for sentence in unknown_variables():
        yield Finding("settings", "warn", sentence)
    announce_backend(say)
    reachable = True
    for finding in _checked("database", lambda: _database(module), module):
        reachable = reachable and finding.state != "fail"
        yield finding
    if reachable:
        yield from _checked("schema", _schema, module)
    # Its checks would create the database, or name its fault again.
    if reachable or ax.CONF.backend_module != SQL_BACKEND:
        yield from _checked("queue", _queue, module)
    if reachable:
        yield from _checked("workers", _workers, module)
    yield from _checked("payloads", _payloads, module)
    yield from _keys()


def _checked(
    name: str, check: Callable[[], Iterator[Finding]], module: str | None = None
) -> Iterator[Finding]:
    """Run a check, and report its error as a finding."""
    try:
        with naming_module(module):
            yield from check()
    except AgentexecError as error:
        yield Finding(name, "fail", str(error))
    except Exception as error:
        yield Finding(name, "fail", f"{type(error).__name__}: {error}")


def _module(module: str | None, given: bool) -> Iterator[Finding]:
    if not module:
        yield Finding("module", "warn", "none given: name it as an argument or in AGENTEXEC_WORKER_MODULE.")
        return
    tasks = load(module, given=given)
    if not tasks:
        yield Finding("module", "warn", f"{module} has no tasks: add one with @pool.task.")
    else:
        yield Finding("module", "ok", f"{module} has the tasks {', '.join(tasks)}")


def _database(module: str | None) -> Iterator[Finding]:
    from agentexec.db.engine import require_shareable, server_name
    from agentexec.db.pooler import pooling_of
    from agentexec.db.transactions import reading
    from agentexec.db.urls import safe_url

    engine = ax.get_engine()
    require_shareable(engine)
    require_database(module)
    times: list[float] = []
    with reading(engine) as connection:
        for _ in range(TRIES):
            start = time.perf_counter()
            connection.exec_driver_sql("SELECT 1")
            times.append(1000 * (time.perf_counter() - start))
        server = server_name(connection)
    _require_writes(engine)
    text = f"{server} at {safe_url(engine.url)}"
    if not pooling_of(engine).keeps_session:
        text += " through a pooler in transaction mode"
    yield _timed("database", text, sorted(times)[TRIES // 2])


def _require_writes(engine: Engine) -> None:
    """Raise UnavailableError if the database takes no writes, as a replica does, or UsageError if this role may not write."""
    from sqlalchemy import false, update

    from agentexec.activity.models import Activity
    from agentexec.db.transactions import writing

    # Servers refuse it although no row is meant. A missing table is for the check of the schema.
    with contextlib.suppress(SchemaError), writing(engine) as connection:
        connection.execute(update(Activity).where(false()).values(crashes=Activity.crashes))


def _schema() -> Iterator[Finding]:
    from agentexec.activity.partitions import interval_of, uncovered
    from agentexec.db.clock import utc_now
    from agentexec.db.transactions import reading
    from agentexec.schema.tables import check_schema

    engine = ax.get_engine()
    check_schema(engine)
    with reading(engine) as connection:
        interval = interval_of(connection)
        without = uncovered(connection, utc_now())
    if without:
        yield Finding(
            "schema",
            "warn",
            f"{', '.join(without)}: no partition for new rows, which prune then deletes one by one; start a worker, or run "
            f"`agentexec migrate --partition {interval or 'monthly'}` as the owner of the tables.",
        )
    else:
        yield Finding("schema", "ok", "up to date" + (f", with {interval} partitions" if interval else ""))


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
    from agentexec.activity.queries.pauses import pauses_of
    from agentexec.runtime import RUNTIME

    served = [queue.name for queue in ax.CONF.served_queues]
    for queue in dict.fromkeys([*served, ax.CONF.queue_name, *RUNTIME.named_queues()]):
        serving = serving_workers(queue)
        if not serving:
            yield Finding("workers", "warn", f"none serves {queue}: start `agentexec worker`.")
            continue
        hosts = len({worker.host for worker in serving})
        yield Finding("workers", "ok", f"{len(serving)} process(es) on {hosts} host(s) serve {queue}")
    yield from _runs()
    with session() as db:
        for pause in pauses_of(db):
            advice = f"`agentexec queues resume {pause.queue}` ends it."
            yield Finding("queues", "warn", f"{pause.sentence()} {advice}")


def _runs() -> Iterator[Finding]:
    """Report the open runs that began with a version, and those that no worker may take."""
    from agentexec.activity.queries.versions import open_runs

    with session() as db:
        groups = open_runs(db)
    for version in sorted({group.version for group in groups}):
        number = sum(group.number for group in groups if group.version == version)
        yield Finding("runs", "ok", f"{number} open run(s) began with version {version}")
    serving = {queue: serving_workers(queue) for queue in {group.queue for group in groups}}
    for group in groups:
        workers = serving[group.queue]
        if workers and not any(worker.may_run(group.task_name, group.version) for worker in workers):
            yield Finding(
                "runs",
                "warn",
                f"{group.number} run(s) of {group.task_name} began with version {group.version}, and no worker of the queue "
                f"{group.queue} runs that version: start one, or workers without --pin-versions.",
            )


def _payloads() -> Iterator[Finding]:
    from agentexec.payloads.sealing import first_fingerprint, require_encryption
    from agentexec.payloads.stores import check_store, shown_url

    if (name := first_fingerprint()) is not None:
        require_encryption()
        yield Finding("encryption", "ok", f"values are encrypted with the key {name}")
    if (url := ax.CONF.payload_store) is not None:
        start = time.perf_counter()
        check_store()
        took = 1000 * (time.perf_counter() - start)
        yield Finding("payloads", "ok", f"{shown_url(url)}: written, read and removed, {took:.1f} ms")


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


def main(text: str) -> NoReturn:
    """Write the findings to a file descriptor, one JSON object a line; `text` is the arguments as JSON."""
    arguments = json.loads(text)
    with os.fdopen(arguments["output"], "w", encoding="utf-8") as output:
        for finding in findings(arguments["module"], given=arguments["given"]):
            print(json.dumps(finding._asdict()), file=output, flush=True)
    # The exit handlers of the user's module belong to workers.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])

"""`agentexec worker`: run workers until stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import agentexec as ax
from agentexec.arguments.queue_names import find_problem
from agentexec.arguments.served_queues import format_served, parse_queues
from agentexec.arguments.variables import variable_texts
from agentexec.cli.app_module import SameModule, announce_backend, importing


def run(
    module: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE[:ATTR]",
            help="Module or file with your pool, like myapp.worker or worker.py:pool. Default: AGENTEXEC_WORKER_MODULE.",
            show_default=False,
        ),
    ] = None,
    app: SameModule = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Number of worker processes (AGENTEXEC_NUM_WORKERS)."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            min=1,
            help="Tasks that one process runs at once (AGENTEXEC_WORKER_CONCURRENCY).",
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            "-Q",
            help="Queue to take tasks from (AGENTEXEC_QUEUE_NAME), or several (AGENTEXEC_QUEUES): high,default in this order, "
            "or high:3,default:1 by weight.",
        ),
    ] = None,
    graceful_timeout: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds that running tasks get on SIGTERM (AGENTEXEC_GRACEFUL_SHUTDOWN_TIMEOUT)."
        ),
    ] = None,
    max_tasks_per_child: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tasks after which a process is replaced, 0 for never (AGENTEXEC_MAX_TASKS_PER_CHILD).",
        ),
    ] = None,
    max_memory_per_child: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="MIB",
            help="Memory above which a process is replaced, 0 for any (AGENTEXEC_MAX_MEMORY_PER_CHILD).",
        ),
    ] = None,
    hang_timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds after which a process that hangs is replaced, 0 for never (AGENTEXEC_HANG_TIMEOUT).",
        ),
    ] = None,
    worker_version: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Version of the tasks that have none of their own (AGENTEXEC_WORKER_VERSION).",
        ),
    ] = None,
    pin_versions: Annotated[
        bool | None,
        typer.Option(
            "--pin-versions",
            help="Run only what began with the version of these tasks, and new tasks (AGENTEXEC_PIN_VERSIONS).",
        ),
    ] = None,
    burst: Annotated[
        bool | None,
        typer.Option("--burst", help="Stop once the queue is empty and no task runs here (AGENTEXEC_BURST)."),
    ] = None,
    reload: Annotated[
        bool | None,
        typer.Option("--reload", help="Load the code again when it changes (AGENTEXEC_RELOAD)."),
    ] = None,
    pidfile: Annotated[
        Path | None, typer.Option(help="File for the pid of this process (AGENTEXEC_PIDFILE).")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="Log level (AGENTEXEC_LOG_LEVEL).")] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="text|json", help="Format of the log (AGENTEXEC_LOG_FORMAT).")
    ] = None,
    heartbeat_file: Annotated[
        Path | None,
        typer.Option(
            # Read by typer, so that a probe need not load the settings.
            envvar="AGENTEXEC_HEARTBEAT_FILE",
            show_envvar=False,
            help="File rewritten every second for --check and --ready (AGENTEXEC_HEARTBEAT_FILE).",
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the probes /livez and /readyz (AGENTEXEC_HEALTH_PORT)."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the metrics for Prometheus (AGENTEXEC_METRICS_PORT)."),
    ] = None,
    listen_address: Annotated[
        str | None,
        typer.Option(
            metavar="IP",
            help="Address of both ports, like 127.0.0.1; all of the host by default (AGENTEXEC_LISTEN_ADDRESS).",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Run nothing; exit with 0 if the worker of the heartbeat file is alive."
        ),
    ] = False,
    ready: Annotated[
        bool,
        typer.Option(
            "--ready", help="Run nothing; exit with 0 if the worker of the heartbeat file takes tasks."
        ),
    ] = False,
) -> None:
    """Run workers until SIGTERM or Ctrl-C. A second signal stops them sooner.

    SIGHUP loads the module again and replaces the processes without a gap; SIGTTIN and SIGTTOU add and remove one.

    Exit codes: 0 stopped in order, 1 forced to stop or crashed, 2 the module cannot be loaded, a setting is invalid or
    Redis refuses to serve (a permission, a password, a cluster), 3 Redis or the database cannot be reached, 5 the database needs `agentexec migrate`. --check and --ready only read
    the heartbeat file, and exit with 0 or 1.
    """
    if check or ready:
        from agentexec.worker.probe import answer

        answer(heartbeat_file or ax.CONF.heartbeat_file, ready=ready)
    options = {
        "num_workers": workers,
        "worker_concurrency": concurrency,
        "graceful_shutdown_timeout": graceful_timeout,
        "max_tasks_per_child": max_tasks_per_child,
        "max_memory_per_child": max_memory_per_child,
        "hang_timeout": hang_timeout,
        "worker_version": worker_version,
        "pin_versions": pin_versions,
        "burst": burst,
        "reload": reload,
        "pidfile": pidfile,
        "log_level": log_level,
        "log_format": log_format,
        "heartbeat_file": heartbeat_file,
        "health_port": health_port,
        "metrics_port": metrics_port,
        "listen_address": listen_address,
    }
    overrides = {name: value for name, value in options.items() if value is not None}
    if queue is not None:
        overrides |= _queue_settings(queue)
    for name, value in overrides.items():
        setattr(ax.CONF, name, value)
    # Imported on use: the other commands start faster without them.
    from agentexec.worker.host_settings import HostSettings
    from agentexec.worker.supervisor_main import become_supervisor
    from agentexec.worker.target import Target
    from agentexec.worker.unknown_variables import unknown_variables

    given = module or app
    target = Target.parse(given or ax.CONF.worker_module or "")
    news = [importing(target, given=given is not None)]
    announce_backend(news.append)
    become_supervisor(
        target,
        HostSettings.of(ax.CONF),
        variable_texts(overrides),
        news=news,
        warnings=unknown_variables(),
        show_traceback="--traceback" in sys.argv,
    )


def _queue_settings(text: str) -> dict[str, str]:
    """Return the settings of --queue. One queue is also that of tasks that are enqueued without a queue, if its name allows it."""
    served = parse_queues(text)
    queues = {"queues": format_served(served)}
    if len(served) > 1 or find_problem(served[0].name) is not None:
        return queues
    return {**queues, "queue_name": served[0].name}

"""The registry of verbs. Looking up one imports its module only, so a command starts without the others' imports."""

from __future__ import annotations

from collections.abc import Callable

Command = Callable[..., None]


def _worker() -> Command:
    from agentexec.cli.worker import run

    return run


def _migrate() -> Command:
    from agentexec.cli.migrate import run

    return run


def _monitor() -> Command:
    from agentexec.cli.monitor import run

    return run


def _dashboard() -> Command:
    from agentexec.cli.dashboard import run

    return run


def _mcp() -> Command:
    from agentexec.cli.mcp import run

    return run


def _enqueue() -> Command:
    from agentexec.cli.enqueue import run

    return run


def _list() -> Command:
    from agentexec.cli.list import run

    return run


def _show() -> Command:
    from agentexec.cli.show import run

    return run


def _logs() -> Command:
    from agentexec.cli.logs import run

    return run


def _chat() -> Command:
    from agentexec.cli.chat import run

    return run


def _conversations() -> Command:
    from agentexec.cli.conversations import run

    return run


def _cancel() -> Command:
    from agentexec.cli.cancel import run

    return run


def _failed() -> Command:
    from agentexec.cli.failed import run

    return run


def _retry() -> Command:
    from agentexec.cli.retry import run

    return run


def _budget() -> Command:
    from agentexec.cli.budget import run

    return run


def _fork() -> Command:
    from agentexec.cli.fork import run

    return run


def _export() -> Command:
    from agentexec.cli.export import run

    return run


def _check() -> Command:
    from agentexec.cli.check import run

    return run


def _approvals() -> Command:
    from agentexec.cli.approvals import run

    return run


def _approve() -> Command:
    from agentexec.cli.approve import run

    return run


def _reject() -> Command:
    from agentexec.cli.reject import run

    return run


def _cancel_pending() -> Command:
    from agentexec.cli.cancel_pending import run

    return run


def _schedules() -> Command:
    from agentexec.cli.schedules import run

    return run


def _queues() -> Command:
    from agentexec.cli.queues import run

    return run


def _move_queue() -> Command:
    from agentexec.cli.move_queue import run

    return run


def _webhooks() -> Command:
    from agentexec.cli.webhooks import run

    return run


def _prune() -> Command:
    from agentexec.cli.prune import run

    return run


def _rotate_keys() -> Command:
    from agentexec.cli.rotate_keys import run

    return run


def _doctor() -> Command:
    from agentexec.cli.doctor import run

    return run


def _init() -> Command:
    from agentexec.cli.init import run

    return run


def _version() -> Command:
    from agentexec.cli.version import run

    return run


VERBS: dict[str, Callable[[], Command]] = {
    "worker": _worker,
    "migrate": _migrate,
    "monitor": _monitor,
    "dashboard": _dashboard,
    "mcp": _mcp,
    "enqueue": _enqueue,
    "list": _list,
    "show": _show,
    "logs": _logs,
    "chat": _chat,
    "conversations": _conversations,
    "cancel": _cancel,
    "failed": _failed,
    "retry": _retry,
    "budget": _budget,
    "fork": _fork,
    "export": _export,
    "check": _check,
    "approvals": _approvals,
    "approve": _approve,
    "reject": _reject,
    "cancel-pending": _cancel_pending,
    "schedules": _schedules,
    "queues": _queues,
    "move-queue": _move_queue,
    "webhooks": _webhooks,
    "prune": _prune,
    "rotate-keys": _rotate_keys,
    "doctor": _doctor,
    "init": _init,
    "version": _version,
}
"""Verbs in the order of `--help`, each with the function that imports its module and returns its command."""

WITHOUT_DATABASE = frozenset({"worker", "doctor", "init", "version"})
"""Verbs that open no database, or that take the user's module by themselves."""


def get_command(verb: str) -> Command:
    """Return the command of a verb. Those that open a database take the user's module with --app."""
    command = VERBS[verb]()
    if verb in WITHOUT_DATABASE:
        return command
    from agentexec.cli.app_module import with_app

    if verb == "migrate":
        return with_app(command, creates="any")
    return with_app(command, creates="embedded" if verb == "enqueue" else "nothing")

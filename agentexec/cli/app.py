"""The `agentexec` command: its verbs, and what becomes of errors."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agentexec import __version__
from agentexec.cli.common import one_line
from agentexec.errors import AgentexecError
from agentexec.redaction import redact

TRACEBACK = "--traceback"

VERBS = {
    "worker": ("worker", "run"),
    "migrate": ("migrate", "run"),
    "monitor": ("monitor", "run"),
    "enqueue": ("enqueue", "run"),
    "list": ("activities", "list_tasks"),
    "show": ("activities", "show_task"),
    "logs": ("activities", "logs"),
    "cancel": ("cancel", "run"),
    "retry": ("activities", "retry"),
    "approvals": ("approvals", "show"),
    "approve": ("approvals", "approve"),
    "reject": ("approvals", "reject"),
    "cancel-pending": ("cancel_pending", "run"),
    "prune": ("activities", "prune"),
    "doctor": ("doctor", "run"),
    "init": ("init", "run"),
    "version": ("version", "run"),
}
"""Each verb's module and function."""


def build_app(verbs: Iterable[str] = VERBS) -> typer.Typer:
    """The command with some of its verbs; by default with all."""
    # Help is plain text: rich would take longer to import than the whole command takes.
    app = typer.Typer(
        name="agentexec",
        help="Run OpenAI Agents SDK tasks in production.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for verb in verbs:
        module, function = VERBS[verb]
        app.command(verb)(getattr(importlib.import_module(f"agentexec.cli.{module}"), function))
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentexec {__version__}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    _traceback: Annotated[
        bool, typer.Option(TRACEBACK, help="Show the Python traceback of an error.")
    ] = False,
) -> None:
    """Run OpenAI Agents SDK tasks in production."""


def main() -> NoReturn:
    """Entry point. Exit codes: 0 clean, 1 failed or forced, 2 usage, 3 unreachable, 5 schema."""
    # Anywhere on the line, as one adds it behind a command that has just failed.
    show = TRACEBACK in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != TRACEBACK]
    # Last, so that nothing is hidden: AGENTEXEC_STATE_BACKEND may name a module of the project.
    sys.path.append(str(Path.cwd()))
    # The other verbs' modules need not be loaded, unless all are told of.
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    app = build_app([verb] if verb in VERBS else VERBS)
    try:
        code = app(arguments, prog_name="agentexec", standalone_mode=False)
    except typer.Abort:
        _fail("Aborted.", 1, show)
    except TimeoutError as error:
        _fail(error, 1, show)
    except AgentexecError as error:
        _fail(error, error.exit_code, show)
    except Exception as error:
        _fail_usage(error)
        _fail(f"{type(error).__name__}: {error} (add {TRACEBACK} to see where)", 1, show)
    sys.exit(code if isinstance(code, int) else 0)


def _fail_usage(error: Exception) -> None:
    """End on a command line that the parser does not understand; return for any other error."""
    told = getattr(error, "format_message", None)
    if told is None:
        return
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(told(), err=True)
        sys.exit(2)
    context = getattr(error, "ctx", None)
    path = "agentexec" if context is None else context.command_path
    _fail(f"{str(told()).rstrip('.')}; see `{path} --help`.", getattr(error, "exit_code", 2), show=False)


def _fail(error: Exception | str, code: int, show: bool) -> NoReturn:
    if show:
        sys.stderr.write(redact(traceback.format_exc()))
    # What a task has raised may stand in it.
    typer.echo(one_line(redact(f"agentexec: {error}")), err=True)
    sys.exit(code)

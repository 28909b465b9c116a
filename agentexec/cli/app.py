"""The `agentexec` command: it parses the command line, runs the verb, and reports errors."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from typing import Annotated, NoReturn

import typer

from agentexec import __version__
from agentexec.cli.output import one_line
from agentexec.cli.verbs import VERBS, get_command
from agentexec.errors import AgentexecError, UsageError
from agentexec.redaction import redact

TRACEBACK = "--traceback"

FAILED = 1
"""Exit code of an error that is not an AgentexecError; those have theirs in `agentexec.errors`."""

USAGE = 2
"""Exit code of a command line that the parser rejects."""


def build_app(verbs: Iterable[str] = VERBS) -> typer.Typer:
    """Return the command with the given verbs, by default with all of them."""
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
        app.command(verb)(get_command(verb))
    return app


def _show_version(requested: bool) -> None:
    if requested:
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
    """Run the command line. Exit codes: 0 done, 1 failed or forced, 2 usage, 3 unreachable, 5 schema."""
    # Accepted anywhere on the line, since it is usually added to the end of a command that has just failed.
    show_traceback = TRACEBACK in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != TRACEBACK]
    # Other verbs are loaded only for the help that lists them all.
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    app = build_app([verb] if verb in VERBS else VERBS)
    try:
        code = app(arguments, prog_name="agentexec", standalone_mode=False)
    except Exception as error:
        _fail(error, show_traceback, verb)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: Exception, show_traceback: bool, verb: str | None) -> NoReturn:
    """Report an error in one line and exit with its code."""
    if isinstance(error, AgentexecError):
        message, code = _message(error, verb), error.exit_code
    elif isinstance(error, typer.Abort):
        message, code = "Aborted.", FAILED
    elif isinstance(error, TimeoutError):
        message, code = str(error), FAILED
    elif (format_message := getattr(error, "format_message", None)) is not None:
        _fail_usage(error, format_message())
    else:
        message, code = f"{type(error).__name__}: {error} (add {TRACEBACK} to see where)", FAILED
    if show_traceback:
        sys.stderr.write(redact(traceback.format_exc()))
    # It may quote an error that a task raised, hence the redaction.
    typer.echo(one_line(redact(f"agentexec: {message}")), err=True)
    sys.exit(code)


def _message(error: AgentexecError, verb: str | None) -> str:
    if verb not in VERBS or not isinstance(error, UsageError):
        return str(error)
    # Imported on use: only errors need it.
    from agentexec.cli.option_names import with_option_names

    return with_option_names(str(error), get_command(verb))


def _fail_usage(error: Exception, message: str) -> NoReturn:
    """Report a command line that the parser rejects.

    Typer's exceptions come from click or from its own copy of click, by its release, so their classes are not named.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        sys.exit(USAGE)
    context = getattr(error, "ctx", None)
    command = "agentexec" if context is None else context.command_path
    # Typer may end with a question: "Did you mean 'list'?"
    advice = f" See `{command} --help`." if message.endswith("?") else f"; see `{command} --help`."
    typer.echo(one_line(redact(f"agentexec: {message.rstrip('.')}{advice}")), err=True)
    sys.exit(getattr(error, "exit_code", USAGE))

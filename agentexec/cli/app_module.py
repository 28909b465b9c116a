"""The user's module for commands: `--app` of all of them, and what the commands learn from the module.

A worker uses the database and the settings that the user's module sets in code. A command that is given the module uses
the same.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentexec.cli.output import one_line
from agentexec.errors import ModuleLoadError, SchemaError

if TYPE_CHECKING:
    from agentexec.worker.target import Target

AppModule = Annotated[
    str | None,
    typer.Option(
        "--app",
        "-A",
        metavar="MODULE[:ATTR]",
        help="Module or file with your pool, whose database and settings are used. Default: AGENTEXEC_WORKER_MODULE; an "
        "empty text loads no module.",
        show_default=False,
    ),
]
SameModule = Annotated[
    str | None, typer.Option("--app", "-A", metavar="MODULE[:ATTR]", help="The same as MODULE, as an option.")
]
Creates = Literal["nothing", "embedded", "any"]
"""Databases that a command may create: none, agentexec's own SQLite file, or any."""

VARIABLE = "AGENTEXEC_WORKER_MODULE"
BACKEND = "AGENTEXEC_STATE_BACKEND"
OTHER_DATABASE = " If your worker uses another one, name its module with --app."


def with_app(command: Callable[..., None], *, creates: Creates = "nothing") -> Callable[..., None]:
    """Return a command with the option `--app`, which runs on the database of that module.

    Args:
        command: Function of the verb, as typer takes it.
        creates: Database that the command may create, unless its option `--check` asks to change nothing.
    """
    # Evaluated here, as typer would look for the names of the annotations in this module.
    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("app", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=AppModule)
    parameters = [*signature.parameters.values(), option]

    @functools.wraps(command)
    def run(*, app: str | None = None, **arguments: Any) -> None:
        name = use_app(app)
        may_create: Creates = "nothing" if arguments.get("check") else creates
        with naming_module(name), guarding_database(name, creates=may_create):
            command(**arguments)

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    return run


@contextlib.contextmanager
def naming_module(name: str | None) -> Generator[None]:
    """Name the module where an error advises to migrate, which would otherwise migrate another database."""
    try:
        yield
    except SchemaError as error:
        if not name:
            raise
        from agentexec.worker.target import Target

        raise SchemaError(Target.parse(name).named_in(str(error))) from error


def use_app(app: str | None) -> str | None:
    """Load the module that is given, or that the settings name, and use what it sets. Return its name, if there is one.

    Raises ModuleLoadError, which says what is wrong with it.
    """
    import agentexec as ax  # reads the settings: --help must work with a bad one too

    name = ax.CONF.worker_module if app is None else app
    if name:
        load(name, given=app is not None)
    announce_backend(say)
    return name or None


def load(name: str, *, given: bool) -> list[str]:
    """Load the user's module into this process, say so on standard error, and return the names of its tasks.

    Args:
        name: Module as on the command line.
        given: True if the command line names it, False if the settings do.
    """
    # Imported on use: commands that are given no module start faster without them.
    import agentexec as ax
    from agentexec.runtime import RUNTIME
    from agentexec.worker.loading import load as load_target
    from agentexec.worker.target import Target

    target = Target.parse(name)
    say(importing(target, given=given))
    RUNTIME.only_reads_program = True
    try:
        # What the module prints must not get between the lines of the command's answer.
        with contextlib.redirect_stdout(sys.stderr):
            pool = load_target(target)
    except ModuleLoadError as error:
        if given:
            raise
        raise ModuleLoadError(f'{error} Without a module, --app "" uses the settings alone.') from error
    if pool.registry.queue_name is not None:
        ax.CONF.queue_name = pool.registry.queue_name
    if pool.registry.queues is not None:
        ax.CONF.queues = pool.registry.queues
    return sorted(task.name for task in pool.registry)


def importing(target: Target, *, given: bool) -> str:
    """Return a sentence about the module that is about to be imported; see `load`."""
    by = "" if given else f", as {VARIABLE}{_place_of(VARIABLE)} says"
    # Imported on use, as in `load`.
    from agentexec.worker.user_folders import file_of

    file = file_of(target)
    return f"Importing {target}{'' if file in (None, target.module) else f' from {file}'}{by}."


def announce_backend(say: Callable[[str], object]) -> None:
    """Make a state backend in the current folder importable, and say which file it is."""
    import agentexec as ax

    name = ax.CONF.backend_module
    if name.startswith("agentexec.") or name in sys.modules:
        return
    from agentexec.worker.user_folders import UserFolders

    folders = UserFolders([str(Path.cwd())])
    if (file := folders.file_of(name)) is not None:
        folders.install()
        say(f"The state backend is {name} from {file}, as {BACKEND}{_place_of(BACKEND)} says.")


@contextlib.contextmanager
def guarding_database(name: str | None, *, creates: Creates) -> Generator[None]:
    """Refuse, when it is first opened, a database that does not exist, and always one that no other process can open.

    Args:
        name: The user's module, if there is one.
        creates: Database that the command may create. It says so where nothing names that database.
    """
    # Imported on use, as this module is also imported for --help.
    from sqlalchemy import event

    from agentexec.db.engine import require_shareable
    from agentexec.db.urls import safe_url, sqlite_file
    from agentexec.runtime import RUNTIME

    engine = RUNTIME.engine
    require_shareable(engine)
    file = sqlite_file(engine.url)
    if file is None or file.exists():
        yield
        return

    def before_connecting(*_: Any) -> None:
        embedded = RUNTIME.embedded
        if creates == "nothing" or (creates == "embedded" and not embedded):
            require_database(name)
        elif not name and embedded and not file.exists():
            say(f"Creating the database {safe_url(engine.url)}, as no setting names one.{OTHER_DATABASE}")

    event.listen(engine, "do_connect", before_connecting)
    try:
        yield
    finally:
        event.remove(engine, "do_connect", before_connecting)


def require_database(name: str | None) -> None:
    """Refuse a SQLite file that does not exist, and which opening it would create. Raises SchemaError."""
    from agentexec.db.urls import safe_url, sqlite_file
    from agentexec.runtime import RUNTIME

    url = RUNTIME.engine.url
    file = sqlite_file(url)
    if file is not None and not file.exists():
        hint = "" if name else OTHER_DATABASE
        raise SchemaError(
            f"There is no database {safe_url(url)}: start a worker, or run `agentexec migrate`.{hint}"
        )


def say(sentence: str) -> None:
    """Print a sentence beside the command's answer."""
    typer.echo(one_line(sentence), err=True)


def _place_of(variable: str) -> str:
    """Return where a variable is set, for a message."""
    # Names of settings have no case.
    return "" if variable in {name.upper() for name in os.environ} else " in .env"

"""`agentexec mcp`: serves assistants over the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from agentexec.cli.options import MetadataScope, parse_labels
from agentexec.errors import UsageError

ACTS = ("approve", "reject", "retry", "cancel", "fork", "enqueue")


def run(
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="TOOL,...",
            help="Tools that change something: approve, reject, retry, cancel, fork, enqueue (repeatable).",
        ),
    ] = None,
    allow_all: Annotated[bool, typer.Option("--allow-all", help="Allow all of them.")] = False,
    metadata: MetadataScope = None,
    http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="HOST:PORT",
            help="Serve over HTTP at this address instead. One that is not a loopback address needs AGENTEXEC_MCP_TOKEN.",
        ),
    ] = None,
) -> None:
    """Serve an assistant over the Model Context Protocol, read-only unless tools are allowed. Needs agentexec[mcp].

    The assistant starts the command itself and speaks with it on standard input and output. With --http, clients connect
    to it, and send the token of AGENTEXEC_MCP_TOKEN if it is set.
    """
    allowed = _allowed(allow, allow_all)
    # Imported on use: it needs the extra, and the other commands start faster without it.
    try:
        from agentexec.mcp.http import serve_http
        from agentexec.mcp.server import serve_stdio
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise UsageError(
            "agentexec mcp needs mcp 2.3 or newer, which is not installed; run `pip install 'agentexec[mcp]'`."
        ) from error
    from agentexec import __version__
    from agentexec.arguments.actors import current_user, source_on_host
    from agentexec.config import CONF
    from agentexec.mcp.scope import Scope

    scope = Scope(f"mcp {current_user()}", source_on_host("mcp"), parse_labels(metadata))
    if http is None:
        serve_stdio(scope, allowed, __version__)
    else:
        token = None if CONF.mcp_token is None else CONF.mcp_token.get_secret_value()
        serve_http(scope, allowed, __version__, http, token=token, say=typer.echo)


def _allowed(allow: list[str] | None, allow_all: bool) -> frozenset[str]:
    names = [name.strip() for part in allow or () for name in part.split(",")]
    for name in names:
        if name not in ACTS:
            raise UsageError(f"--allow takes {', '.join(ACTS)}, not {name!r}.")
    return frozenset(ACTS if allow_all else names)

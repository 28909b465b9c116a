"""`agentexec dashboard`: serves the web dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from agentexec.errors import UsageError


def run(
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. One that is not a loopback address requires a token."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8765,
    token: Annotated[
        bool,
        typer.Option(
            "--token", help="Require a token also on a loopback address, for machines with several users."
        ),
    ] = False,
    allow_acts: Annotated[
        bool,
        typer.Option(
            "--allow-acts", help="Let readers cancel, retry, approve, reject, pause and resume, too."
        ),
    ] = False,
) -> None:
    """Serve the web dashboard, read-only unless acts are allowed. Needs agentexec[web].

    The token is that of AGENTEXEC_DASHBOARD_TOKEN; without one, a new one is printed as part of the link.
    """
    # Imported on use: it needs the extra, and the other commands start faster without it.
    try:
        from agentexec.web.dashboard_server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise UsageError(
            f"agentexec dashboard needs {error.name}, which is not installed; run `pip install 'agentexec[web]'`."
        ) from error
    serve(host, port, token=token, allow_acts=allow_acts, say=typer.echo)

"""The dashboard as an ASGI app: the page, the HTTP API below `api/`, the login, and the guard before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Body, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from agentexec.arguments.setting_types import MAX_TOKEN_LENGTH, MIN_KEY_LENGTH
from agentexec.config import CONF
from agentexec.errors import UsageError
from agentexec.web.api import router
from agentexec.web.caller import Caller
from agentexec.web.errors import add_error_handlers
from agentexec.web.guard import Guard
from agentexec.web.invalid import sentence_of
from agentexec.web.logins import SECONDS, Logins
from agentexec.web.page import Page

NAME = "the dashboard"
"""Name of the caller in the logs of tasks, as in "Canceled by the dashboard.", where nobody has a name."""


def dashboard(
    *, caller: Callable[..., Any] | None = None, token: str | None = None, allow_acts: bool = False
) -> FastAPI:
    """Return the web dashboard as an ASGI app, to mount below any path: `app.mount("/agentexec", ax.web.dashboard())`.

    With neither `caller` nor a token it answers only browsers on its own machine, at a loopback address.

    Args:
        caller: FastAPI dependency that returns the `ax.web.Caller` of a request: who asks, which tasks that person may
            see, and whether that person may act. It may raise HTTPException(401).
        token: Token with which one logs in, of 16 characters or more. By default AGENTEXEC_DASHBOARD_TOKEN, unless
            `caller` is given.
        allow_acts: Whether everyone who may read may also cancel, retry, approve, reject, pause and resume. With
            `caller`, each Caller says so itself.

    Returns:
        The app.

    Raises:
        UsageError: The arguments contradict each other, or the token is too short.
    """
    logins = _logins(caller, token, allow_acts)
    app = FastAPI(title="agentexec dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    add_error_handlers(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    if logins is not None:
        app.include_router(_login_routes(logins), prefix="/api")
    app.include_router(router(caller=caller or _caller(logins, act=allow_acts)), prefix="/api")
    app.add_api_route("/api/{path:path}", _unknown, methods=["GET", "POST"])
    app.add_route("/{path:path}", Page(has_login=logins is not None).answer)
    app.add_middleware(Guard, only_local=caller is None and logins is None)
    return app


def _logins(caller: Callable[..., Any] | None, token: str | None, allow_acts: bool) -> Logins | None:
    if caller is not None:
        if token is not None:
            raise UsageError("Give dashboard() either caller= or token=: a caller has its own way to log in.")
        if allow_acts:
            raise UsageError("With caller=, leave out allow_acts=: each Caller says so with act=True.")
        return None
    if token is None and CONF.dashboard_token is not None:
        token = CONF.dashboard_token.get_secret_value()
    if token is None:
        return None
    if len(token) < MIN_KEY_LENGTH:
        raise UsageError(f"The token of the dashboard needs {MIN_KEY_LENGTH} characters or more.")
    return Logins(token)


def _caller(logins: Logins | None, *, act: bool) -> Callable[..., Any]:
    everyone = Caller(NAME, act=act)

    async def local() -> Caller:
        return everyone

    async def logged_in(request: Request) -> Caller | None:
        assert logins is not None  # noqa: S101 - chosen below
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and len(given) <= MAX_TOKEN_LENGTH and logins.accepts(given.strip()):
            return everyone
        return everyone if logins.is_valid(request.cookies.get(logins.cookie)) else None

    return local if logins is None else logged_in


def _login_routes(logins: Logins) -> APIRouter:
    routes = APIRouter()

    @routes.post("/login", status_code=204)
    async def log_in(
        request: Request, token: str = Body(embed=True, max_length=MAX_TOKEN_LENGTH)
    ) -> Response:
        if not logins.accepts(token):
            raise HTTPException(403, "This is not the token of this dashboard.")
        response = Response(status_code=204)
        secure = request.url.scheme == "https"
        response.set_cookie(
            logins.cookie, logins.issue(), max_age=SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return response

    @routes.post("/logout", status_code=204)
    async def log_out() -> Response:
        response = Response(status_code=204)
        response.delete_cookie(logins.cookie, httponly=True, samesite="strict")
        return response

    return routes


async def _invalid(_request: Request, error: Exception) -> Response:
    """Answer an invalid login, which the list of endpoints does not have, as these answer."""
    errors = error.errors() if isinstance(error, RequestValidationError) else ()
    return JSONResponse({"detail": sentence_of(errors)}, 422)


async def _unknown(path: str) -> None:
    raise HTTPException(404, f"The API has no {path[:100]}.")

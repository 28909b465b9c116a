"""Answers to agentexec's errors: a status code and a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from agentexec.errors import (
    AccessDeniedError,
    ActivityNotFoundError,
    AgentexecError,
    ApprovalNotFoundError,
    PayloadTooLargeError,
    ResultExpiredError,
    TaskEndedError,
    TokenInvalidError,
    UnavailableError,
    UsageError,
)

STATUS_CODES: Mapping[type[AgentexecError], int] = {
    TokenInvalidError: 401,
    AccessDeniedError: 403,
    ActivityNotFoundError: 404,
    ApprovalNotFoundError: 404,
    ResultExpiredError: 404,
    TaskEndedError: 409,
    PayloadTooLargeError: 413,
    UsageError: 422,
    UnavailableError: 503,
}
"""Errors that are the caller's, or pass, and the status codes that say so. All others are the server's: 500."""

HEADERS: Mapping[int, Mapping[str, str]] = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}
"""Headers of answers by their status code."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer agentexec's errors in all endpoints of an application with a status code and a sentence.

    A bad argument, such as a `page`, a cursor or a status from the browser, is answered with 422; an unknown task, call
    or expired result with 404; a failed or canceled task with 409; a context that is too large with 413; a server that
    cannot be reached with 503. The body is `{"detail": …}`, like that of an HTTPException.

    Args:
        app: The application.
    """
    for kind in STATUS_CODES:
        app.add_exception_handler(kind, _answer)


def _answer(_request: Request, error: Exception) -> JSONResponse:
    code = status_code(error)
    return JSONResponse({"detail": str(error)}, status_code=code, headers=dict(headers_of(code)))


def status_code(error: Exception) -> int:
    """Return the status code of an answer that tells of an error."""
    return next((code for kind, code in STATUS_CODES.items() if isinstance(error, kind)), 500)


def headers_of(code: int) -> Mapping[str, str]:
    """Return the headers that belong to a status code."""
    return HEADERS.get(code, {})

"""Answers to agentexec's errors: a status code and a sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from agentexec.errors import (
    AccessDeniedError,
    ActivityNotFoundError,
    AgentexecError,
    ApprovalNotFoundError,
    ApprovalRuleNotFoundError,
    BackendInvalidError,
    ConversationBusyError,
    ConversationNotFoundError,
    ModuleLoadError,
    PayloadTooLargeError,
    ResultExpiredError,
    SchemaError,
    SettingsError,
    TaskEndedError,
    TokenInvalidError,
    UnavailableError,
    UsageError,
    WaitDeadlockError,
)

log = logging.getLogger("agentexec.web")

STATUS_CODES: Mapping[type[AgentexecError], int] = {
    TokenInvalidError: 401,
    AccessDeniedError: 403,
    ActivityNotFoundError: 404,
    ApprovalNotFoundError: 404,
    ApprovalRuleNotFoundError: 404,
    ConversationNotFoundError: 404,
    ResultExpiredError: 404,
    ConversationBusyError: 409,
    TaskEndedError: 409,
    WaitDeadlockError: 409,
    PayloadTooLargeError: 413,
    BackendInvalidError: 503,
    ModuleLoadError: 503,
    UsageError: 422,
    SchemaError: 503,
    SettingsError: 503,
    UnavailableError: 503,
    AgentexecError: 500,
}
"""Status codes of errors; the first kind that fits counts. 503 is what who runs the server puts right, 500 is a fault in it."""

FAULT = "The server made a mistake; its log says which."
"""Sentence of an answer with 500: what the error says is none of the caller's business."""

HEADERS: Mapping[int, Mapping[str, str]] = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}
"""Headers of answers by their status code."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer agentexec's errors in all endpoints of an application with a status code and a sentence.

    A bad argument, such as a `page`, a cursor or a status from the browser, is answered with 422; an unknown task, call,
    conversation or expired result with 404; a failed or canceled task and a busy conversation with 409; a context that is too large with 413; a server that
    cannot be reached, a database without the tables and a wrong setting with 503. Any other is logged, and answered with
    500. The body is `{"detail": …}`, like that of an HTTPException.

    Args:
        app: The application.
    """
    for kind in STATUS_CODES:
        app.add_exception_handler(kind, _answer)


def _answer(_request: Request, error: Exception) -> JSONResponse:
    answer = refusal(error)
    return JSONResponse({"detail": answer.detail}, status_code=answer.status_code, headers=answer.headers)


def refusal(error: Exception, headers: Mapping[str, str] | None = None) -> HTTPException:
    """Return the answer that tells of an error; a fault of the server is logged.

    Args:
        error: The error.
        headers: Further headers of the answer.
    """
    code, sentence = status_code(error), str(error)
    if code == 500:
        log.error("A request failed.", exc_info=error)
        sentence = FAULT
    return HTTPException(code, sentence, {**(headers or {}), **HEADERS.get(code, {})})


def status_code(error: Exception) -> int:
    """Return the status code of an answer that tells of an error."""
    return next((code for kind, code in STATUS_CODES.items() if isinstance(error, kind)), 500)

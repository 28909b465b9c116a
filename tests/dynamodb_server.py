"""DynamoDB as moto emulates it, over HTTP: `python -m tests.dynamodb_server PORT`.

One request is served after the other: moto itself lets threads see each other's half-done writes. Connections stay open, as
those to AWS do.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, *_: object) -> None:
        pass


class OneByOne:
    """An application that serves one request at a time."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with self._lock:
            return list(self._application(environ, start_response))


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = OneByOne(create_backend_app("dynamodb"))
    make_server(
        "127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=Handler
    ).serve_forever()

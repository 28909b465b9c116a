"""DynamoDB as moto emulates it, over HTTP: `python -m tests.dynamodb_server PORT FILE`.

One request is served after the other: moto itself lets threads see each other's half-done writes. Connections stay open, as
those to AWS do. After SIGTERM the tables are in the file, from which the next start takes them; SIGKILL loses them.

`POST /faults` with shares of the requests, such as `{"throttle": 0.5}`, makes the server do to them what AWS's does at times:

- `throttle`: it refuses, or serves a part of a batch;
- `lose`: it serves, and resets the connection instead of an answer;
- `delay`: it serves, and answers some seconds later, perhaps when the client has given up.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.dynamodb.models import dynamodb_backends
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

FAULTS = "/faults"

LONGEST_DELAY = 5.0
"""Longest delay of an answer in seconds: longer than clients wait."""

REFUSALS = (
    (400, "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"),
    (400, "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded"),
    (400, "com.amazon.coral.availability#ThrottlingException"),
    (500, "com.amazonaws.dynamodb.v20120810#InternalServerError"),
    (503, "com.amazonaws.dynamodb.v20120810#ServiceUnavailable"),
)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, *_: object) -> None:
        pass

    def connection_dropped(self, *_: object) -> None:
        self.close_connection = True


COUNT_PATH = "/requests"
"""Path at which the server tells how many other requests it has served."""


class OneByOne:
    """An application that serves one request at a time, and counts them."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self.lock = threading.Lock()
        self._served = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == COUNT_PATH:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(self._served).encode()]
        with self.lock:
            self._served += 1
            return list(self._application(environ, start_response))


class Faulty:
    """An application that does to some requests what `POST /faults` has said."""

    def __init__(self, application: Callable[..., list[bytes]]) -> None:
        self._application = application
        self._shares: dict[str, float] = {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == FAULTS:
            self._shares = json.loads(_body(environ))
            return _answer(start_response, 200, {})
        if not self._shares:
            return self._application(environ, start_response)
        if self._happens("throttle"):
            return self._throttled(environ, start_response)
        answer = self._application(environ, start_response)
        if self._happens("lose"):
            raise ConnectionResetError
        if self._happens("delay"):
            time.sleep(random.uniform(0.0, LONGEST_DELAY))
        return answer

    def _happens(self, fault: str) -> bool:
        return random.random() < self._shares.get(fault, 0.0)

    def _throttled(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """Refuse a request, or a part of a batch."""
        body = _body(environ)
        if environ.get("HTTP_X_AMZ_TARGET", "").endswith("BatchWriteItem"):
            request = json.loads(body)
            [(table, writes)] = request["RequestItems"].items()
            served, left = writes[: len(writes) // 2], writes[len(writes) // 2 :]
            if served:
                _set_body(environ, {**request, "RequestItems": {table: served}})
                # The answer of the part would have its own headers.
                self._application(environ, lambda *_: None)
                return _answer(start_response, 200, {"UnprocessedItems": {table: left}})
        status, kind = random.choice(REFUSALS)
        return _answer(start_response, status, {"__type": kind, "message": "This fault was asked for."})


def _body(environ: Environ) -> bytes:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _set_body(environ: Environ, value: Any) -> None:
    body = json.dumps(value).encode()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))


def _answer(start_response: StartResponse, status: int, value: Any) -> list[bytes]:
    body = json.dumps(value).encode()
    headers = [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))]
    start_response(f"{status} {'OK' if status == 200 else 'Refused'}", headers)
    return [body]


def _tables() -> dict[str, Any]:
    return dynamodb_backends["123456789012"]["eu-west-1"].tables


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    file = Path(sys.argv[2])
    if file.exists():
        _tables().update(pickle.loads(file.read_bytes()))
        file.unlink()
    served = OneByOne(create_backend_app("dynamodb"))
    server = make_server(
        "127.0.0.1", int(sys.argv[1]), Faulty(served), threaded=True, request_handler=Handler
    )

    def save() -> None:
        with served.lock:  # for ever: what is answered is saved, and nothing is served any more
            file.write_bytes(pickle.dumps(dict(_tables())))
            os._exit(0)

    # In a thread: the handler may interrupt this one, which serves no request, at any place.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=save).start())
    server.serve_forever()


if __name__ == "__main__":
    main()

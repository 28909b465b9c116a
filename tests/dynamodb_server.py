"""DynamoDB as moto emulates it, over HTTP: `python -m tests.dynamodb_server PORT`.

It serves one request after the other: moto's own server runs them in threads that see each other's half-done writes.
"""

from __future__ import annotations

import sys

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple


class QuietHandler(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    application = create_backend_app("dynamodb")
    run_simple("127.0.0.1", int(sys.argv[1]), application, request_handler=QuietHandler)

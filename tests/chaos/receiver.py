"""A receiver of webhooks that refuses some messages at first, and knows which ones it got with a right signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers import HOST

KEY = base64.b64encode(b"a key of the chaos runs, 32 bytes").decode()
SECRET = f"whsec_{KEY}"

REFUSED = 0.3
"""Part of the first deliveries that are answered with an error."""


class Receiver:
    """HTTP server in a thread of the driver, which no fault reaches."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"receiver {seed}")
        self._lock = threading.Lock()
        self.delivered: Counter[str] = Counter()
        """Messages that were taken, by the id of their task."""
        self.tries: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Messages whose signature was wrong."""
        receive = self._receive

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receive(dict(self.headers.items()), body))
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="chaos-receiver", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _receive(self, headers: dict[str, str], body: bytes) -> int:
        headers = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            message = headers.get("webhook-id", "")
            if not is_signed(headers, body):
                self.wrong.append(message)
                return 400
            self.tries[message] += 1
            if self.tries[message] == 1 and self._chance.random() < REFUSED:
                return 500
            self.delivered[json.loads(body)["data"]["agent_id"].replace("-", "")] += 1
            return 204


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """Return True if one of the signatures of a message is that of the secret (Standard Webhooks)."""
    signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    digest = hmac.new(base64.b64decode(KEY), signed, hashlib.sha256).digest()
    right = "v1," + base64.b64encode(digest).decode()
    return any(hmac.compare_digest(each, right) for each in headers.get("webhook-signature", "").split())

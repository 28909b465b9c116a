"""A small HTTP server for probes and scrapes: GET only, few connections at once, each bounded in time."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from agentexec.errors import SettingsError

log = logging.getLogger("agentexec.supervisor")

REQUEST_SECONDS = 5.0
"""Seconds that a client has for one read or write."""

MAX_CONNECTIONS = 16
"""Connections that are served at once; further ones are closed."""


class Answer(NamedTuple):
    """Answer to a request."""

    status: int
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Answer]]


class ProbeServer(ThreadingHTTPServer):
    """Server of some pages.

    Args:
        port: Port to listen on.
        setting: Name of the setting that has the port, for the error.
        pages: Functions that answer, by path. They run in threads of the server.
        address: IP address to listen on; empty for all of this host.

    Raises:
        SettingsError: The port or the address cannot be used.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, setting: str, pages: Pages, address: str = "") -> None:
        self.pages = pages
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((address, port), _Handler, bind_and_activate=False)
        self.socket.close()
        try:
            self.socket = _listen(address, port)
            self.server_port = port
        except OSError as error:
            where = f" at the address {address} of AGENTEXEC_LISTEN_ADDRESS" if address else ""
            raise SettingsError(
                f"Cannot listen on port {port} of {setting}{where} ({os.strerror(error.errno or 0)})."
            ) from None
        self._thread = threading.Thread(target=self.serve_forever, name="agentexec-http", daemon=True)

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and close the port."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, unless there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a client has caused only at the level debug: it may be anybody."""
        log.debug("Cannot answer a probe.", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server_version = "agentexec"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        pages = self.server.pages if isinstance(self.server, ProbeServer) else {}
        page = pages.get(self.path.partition("?")[0])
        answer = Answer(404, "text/plain", b"Not found.\n") if page is None else page()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""


def _listen(address: str, port: int) -> socket.socket:
    if address:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return socket.create_server(("", port))

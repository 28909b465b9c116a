"""The server of probes answers its pages, and is not held up by slow or many clients."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from agentexec.errors import SettingsError
from agentexec.worker import http_server
from agentexec.worker.http_server import Answer, ProbeServer


def free_port() -> int:
    with socket.create_server(("", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProbeServer]:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    pages = {
        "/livez": lambda: Answer(200, "text/plain", b"alive\n"),
        "/bad": lambda: Answer(503, "text/plain", b""),
    }
    server = ProbeServer(free_port(), "AGENTEXEC_HEALTH_PORT", pages)
    server.start()
    yield server
    server.close()


def get(server: ProbeServer, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://{host}:{server.server_port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_pages_are_answered(server: ProbeServer) -> None:
    assert get(server, "/livez") == get(server, "/livez?verbose") == (200, b"alive\n")
    assert get(server, "/livez", "HEAD") == (200, b"")
    assert get(server, "/bad")[0] == 503
    assert get(server, "/other")[0] == 404
    assert get(server, "/livez", "POST")[0] == 501


def test_silent_clients_do_not_hold_up_others_and_too_many_are_turned_away(server: ProbeServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(2)]
    assert get(server, "/livez")[0] == 200
    silent += [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(2)]
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as further:
        assert further.recv(1) == b""
    for client in silent:
        client.close()


def test_a_taken_port_is_an_error_that_names_it(server: ProbeServer) -> None:
    with pytest.raises(
        SettingsError, match=rf"port {server.server_port} of AGENTEXEC_HEALTH_PORT \(Address already in use\)"
    ):
        ProbeServer(server.server_port, "AGENTEXEC_HEALTH_PORT", {})

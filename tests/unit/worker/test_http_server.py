"""The server of probes answers its pages, and is not held up by slow or many clients."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from agentexec.config import Settings
from agentexec.errors import SettingsError
from agentexec.worker import http_server
from agentexec.worker.http_server import Answer, ProbeServer


def free_port() -> int:
    with socket.create_server(("", 0)) as taken:
        return int(taken.getsockname()[1])


def page() -> Answer:
    return Answer(200, "text/plain", b"alive\n")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProbeServer]:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    pages = {
        "/livez": page,
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


@pytest.mark.parametrize(("address", "other"), [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")])
def test_only_the_address_that_was_chosen_answers(address: str, other: str) -> None:
    server = ProbeServer(free_port(), "AGENTEXEC_HEALTH_PORT", {"/livez": page}, address)
    server.start()
    try:
        assert get(server, "/livez", host=address) == (200, b"alive\n")
        with pytest.raises(urllib.error.URLError):
            get(server, "/livez", host=other)
    finally:
        server.close()


def test_an_address_of_another_host_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingsError, match=r"at the address 192\.0\.2\.1 of AGENTEXEC_LISTEN_ADDRESS"):
        ProbeServer(free_port(), "AGENTEXEC_HEALTH_PORT", {}, "192.0.2.1")


@pytest.mark.parametrize("value", ["localhost", "127.0.0", "1.2.3.4:80", "[::1]"])
def test_what_is_not_an_ip_address_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="AGENTEXEC_LISTEN_ADDRESS cannot be used: must be an IP address"):
        Settings().listen_address = value


def test_addresses_of_both_versions_are_taken() -> None:
    assert Settings(listen_address=" ::1 ").listen_address == "::1"
    assert Settings().listen_address == Settings(listen_address="").listen_address == ""

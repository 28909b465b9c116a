"""Webhooks go to public addresses, and nowhere else."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from agentexec.arguments.webhooks import check_url, shown_url
from agentexec.errors import UsageError
from agentexec.webhooks import request
from agentexec.webhooks.request import DeliveryError, ForbiddenAddressError, post
from tests.unit.webhooks.receiver import open_receiver


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def getaddrinfo(_host: str, port: int, **_options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(request.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.5.5",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "93.184.216.34", address)
    with pytest.raises(ForbiddenAddressError, match="not public"):
        post("https://hooks.example/x", {}, b"{}", allow_private=False)


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "localhost", "[::1]"])
def test_other_ways_to_write_a_private_address_are_refused(host: str) -> None:
    with pytest.raises((ForbiddenAddressError, DeliveryError)):
        post(f"http://{host}:9/x", {}, b"{}", allow_private=False)


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server may give another answer to a second question."""
    connected: list[str] = []

    def connect(address: tuple[str, int], *_arguments: Any) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    resolve_to(monkeypatch, "93.184.216.34", "93.184.216.35")
    monkeypatch.setattr(request.socket, "create_connection", connect)
    with pytest.raises(DeliveryError, match=r"hooks.example: Connection refused"):
        post("https://hooks.example/token", {}, b"{}", allow_private=False)
    assert connected == ["93.184.216.34", "93.184.216.35"]


def test_a_redirect_is_not_followed() -> None:
    with open_receiver() as receiver:
        receiver.answers = [(302, {"location": "/elsewhere"})]
        assert post(f"{receiver.url}?a=b", {"x": "y"}, b"{}", allow_private=True).status == 302
        [received] = receiver.received
    assert (received.path, received.headers["x"], received.body) == ("/hooks?a=b", "y", b"{}")


def test_a_receiver_that_answers_a_byte_at_a_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "TOTAL_SECONDS", 0.3)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer:
                while not stop.wait(0.05):
                    try:
                        peer.sendall(b"H")
                    except OSError:
                        return

        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(DeliveryError):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", {}, b"{}", allow_private=True)
        stop.set()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/x",
        "file:///etc/passwd",
        "example.com",
        "https://",
        "https://a b.example/",
        "https://user:hunter2@example.com/",
        "https://example.com/\r\nx: y",
        "https://example.com:99999/",
        "https://exämple.com/",
        "https://example.com/" + "x" * 2000,
        5,
    ],
)
def test_a_url_that_is_not_one_is_refused(url: Any) -> None:
    with pytest.raises(UsageError, match="webhook=") as caught:
        check_url("webhook=", url)
    assert "hunter2" not in str(caught.value)


def test_a_url_is_shown_without_its_path() -> None:
    assert (
        check_url("webhook=", "https://example.com:8443/t/0k3n?a=b") == "https://example.com:8443/t/0k3n?a=b"
    )
    assert shown_url("https://example.com:8443/t/0k3n?a=b") == "https://example.com"

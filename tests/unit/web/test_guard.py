"""Guard of the dashboard: which requests it refuses, and the headers of every answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agentexec.web.guard import HEADERS, Guard


def send(
    only_local: bool = True,
    method: str = "GET",
    client: tuple[str, int] | None = ("127.0.0.1", 5000),
    answers: dict[str, str] | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the detail of an answer."""
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = [(name.encode(), value.encode()) for name, value in (answers or {}).items()]
        await send({"type": "http.response.start", "status": 200, "headers": found})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Any:
        raise AssertionError("the guard reads no body")

    async def collect(message: Any) -> None:
        messages.append(message)

    sent = {"host": "127.0.0.1:8765", **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
    scope = {"type": "http", "method": method, "client": client, "headers": pairs}
    asyncio.run(Guard(app, only_local=only_local)(scope, receive, collect))
    given = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], given, json.loads(messages[1]["body"]).get("detail", "")


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:80", "[::1]:8765", "127.8.8.8"])
def test_without_a_login_it_answers_its_own_machine(host: str) -> None:
    assert send(host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.5",
        "",
        "[",
        "0.0.0.0",
    ],
)
def test_a_name_that_resolves_to_loopback_is_refused(host: str) -> None:
    status, _, detail = send(host=host)
    assert status == 403
    assert "AGENTEXEC_DASHBOARD_TOKEN" in detail


@pytest.mark.parametrize("client", [("10.0.0.5", 1), ("testclient", 1), None])
def test_other_machines_are_refused_without_a_login(client: Any) -> None:
    assert send(client=client)[0] == 403
    assert send(only_local=False, client=client)[0] == 200


@pytest.mark.parametrize("name", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip", "via"])
def test_a_proxy_on_this_machine_does_not_open_it_to_others(name: str) -> None:
    assert send(**{name: "203.0.113.7"})[0] == 403
    assert send(only_local=False, **{name: "203.0.113.7"})[0] == 200


def test_a_silent_proxy_is_noticed_by_the_page_that_asks() -> None:
    assert send(referer="https://ops.example/agentexec/")[0] == 403
    assert send(referer="http://127.0.0.1:8765/tasks")[0] == 200
    assert send(origin="https://ops.example")[0] == 403


ACT = {"method": "POST", "x_agentexec": "1"}


@pytest.mark.parametrize("only_local", [True, False])
def test_acts_of_the_page_itself_pass(only_local: bool) -> None:
    own = "http://127.0.0.1:8765"
    assert send(only_local, **ACT, sec_fetch_site="same-origin", origin=own)[0] == 200
    assert send(only_local, **ACT, origin=own)[0] == 200
    assert send(only_local, **ACT)[0] == 200, "a script without a browser"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8765.evil.example"},
        {"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1:8765"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_acts_of_other_sites_are_refused(method: str, headers: dict[str, str]) -> None:
    assert send(False, method=method, x_agentexec="1", **headers)[0] == 403


def test_an_act_needs_the_header_that_no_form_can_send() -> None:
    status, _, detail = send(False, method="POST", origin="http://127.0.0.1:8765")
    assert status == 403
    assert "X-Agentexec" in detail


def test_every_answer_has_the_headers_that_protect_the_page() -> None:
    for _, headers, _ in (send(), send(host="evil.example"), send(False, method="POST")):
        assert {name: headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "default-src 'none'" in policy


def test_a_header_of_the_answer_stays() -> None:
    _, headers, _ = send(answers={"Cache-Control": "public, max-age=31536000, immutable"})
    assert headers["Cache-Control"].startswith("public")
    assert "cache-control" not in headers

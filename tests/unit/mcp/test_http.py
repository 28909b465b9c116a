"""The guard of the MCP server over HTTP, and the addresses that it serves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import agentexec as ax
from agentexec.mcp.http import Guard, parse_address, serve_http
from agentexec.mcp.scope import Scope

TOKEN = "a token of 24 characters"
SCOPE = Scope("mcp alice", "mcp")


def send(token: str | None, client: tuple[str, int] = ("127.0.0.1", 5000), **headers: str) -> tuple[int, str]:
    """Return the status and the detail of an answer."""
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def collect(message: Any) -> None:
        messages.append(message)

    sent = {"host": "127.0.0.1:8766", **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
    scope = {"type": "http", "method": "POST", "client": client, "headers": pairs}
    asyncio.run(Guard(app, token)(scope, collect, collect))
    return messages[0]["status"], json.loads(messages[1]["body"]).get("detail", "")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        TOKEN,
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer é",
    ],
)
def test_a_request_without_the_token_is_refused(authorization: str) -> None:
    status, detail = send(TOKEN, authorization=authorization)
    assert status == 401
    assert "AGENTEXEC_MCP_TOKEN" in detail and TOKEN not in detail


def test_a_request_with_the_token_may_come_from_anywhere() -> None:
    headers = {"authorization": f"bearer {TOKEN}", "host": "mcp.example.com", "x_forwarded_for": "1.2.3.4"}
    assert send(TOKEN, ("10.0.0.5", 5000), **headers)[0] == 200
    assert send(TOKEN, origin="https://mcp.example.com", **headers)[0] == 200


def test_without_a_token_programs_of_the_same_machine_are_answered() -> None:
    assert send(None)[0] == send(None, ("::1", 5000), host="[::1]:8766")[0] == 200
    assert send(None, ("10.0.0.5", 5000))[0] == 403
    for headers in ({"host": "evil.example:8766"}, {"host": ""}, {"x_forwarded_for": "1.2.3.4"}):
        status, detail = send(None, **headers)
        assert status == 403 and "AGENTEXEC_MCP_TOKEN" in detail


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://["])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_page_of_another_site_is_refused(token: str | None, origin: str) -> None:
    status, detail = send(token, origin=origin, authorization=f"Bearer {TOKEN}")
    assert status == 403 and "another site" in detail


@pytest.mark.parametrize("address", ["8766", ":8766", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "h:²"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ax.UsageError, match="HOST:PORT"):
        parse_address(address)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "mcp.example.com:0"])
def test_an_address_that_others_reach_needs_a_token(address: str) -> None:
    with pytest.raises(ax.UsageError, match="needs a token: set AGENTEXEC_MCP_TOKEN"):
        serve_http(SCOPE, (), "1", address, token=None, say=print)


def test_addresses_have_a_host_and_a_port() -> None:
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("localhost:0") == ("localhost", 0)

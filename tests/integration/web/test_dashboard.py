"""The dashboard as an application: its page below any path, the API, who may read and act, and the login."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.testclient import TestClient
from pydantic import SecretStr

import agentexec as ax
from agentexec.config import CONF
from tests.deployment import Deployment

TOKEN = "a token of many characters"
ACT = {"X-Agentexec": "1", "Content-Type": "application/json"}
HERE = ("127.0.0.1", 5000)


@pytest.fixture(autouse=True)
def deployment(tmp_path: Path, sqlite_tables: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, sqlite_tables)
    yield deployment
    deployment.close()


def browser(app: Any, url: str = "http://127.0.0.1:8765", client: tuple[str, int] = HERE) -> TestClient:
    return TestClient(app, base_url=url, client=client)


def test_the_page_finds_its_files_below_any_path() -> None:
    app = FastAPI()
    app.mount("/tools/agentexec", ax.web.dashboard())
    web = browser(app)
    assert web.get("/tools/agentexec").url.path == "/tools/agentexec/"
    for path, base in (("", "./"), ("tasks", "./"), ("tasks/7", "../"), ("tasks/7/", "../../")):
        answer = web.get(f"/tools/agentexec/{path}")
        assert answer.status_code == 200
        assert f'<base href="{base}">' in answer.text
        assert answer.headers["cache-control"] == "no-cache"
    page = web.get("/tools/agentexec/").text
    files = [part.partition('"')[0] for part in page.split('="./')[1:]]
    assert {file.rpartition(".")[2] for file in files if file} == {"js", "css", "svg"}
    for file in filter(None, files):
        answer = web.get(f"/tools/agentexec/{file}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert len(answer.content) > 100
    assert "<script>" not in page and "<style" not in page and " style=" not in page


def test_there_is_nothing_else() -> None:
    web = browser(ax.web.dashboard())
    for path in ("assets/none.js", "assets/../index.html", "assets/%2e%2e/page.py", "api/none", "api"):
        answer = web.get(f"/{path}")
        assert answer.status_code == 404 or "<base" in answer.text, path
        assert "from __future__" not in answer.text, path


def test_it_reads_the_record_and_does_not_act() -> None:
    web = browser(ax.web.dashboard())
    assert web.get("/api/me").json()["rights"] == ["read"]
    for path in (
        "overview",
        "spent",
        "activity",
        "approvals",
        "queues",
        "schedules",
        "failed",
        "failed/groups",
        "workers",
    ):
        assert web.get(f"/api/{path}").status_code == 200, path
    assert web.post(f"/api/activity/{uuid4()}/cancel", headers=ACT, json={}).status_code == 403


def test_acts_that_are_allowed_name_the_dashboard(deployment: Deployment) -> None:
    task = deployment.enqueue("work", "one")
    web = browser(ax.web.dashboard(allow_acts=True))
    assert web.get("/api/me").json()["rights"] == ["read", "act"]
    answer = web.post(f"/api/activity/{task.agent_id}/cancel", headers=ACT, json={})
    assert answer.json() == {"changed": True}
    detail = web.get(f"/api/activity/{task.agent_id}").json()
    assert detail["status"] == "canceled"
    assert "the dashboard" in detail["logs"][-1]["message"]


def test_an_act_of_another_site_changes_nothing(deployment: Deployment) -> None:
    task = deployment.enqueue("work", "one")
    web = browser(ax.web.dashboard(allow_acts=True))
    url = f"/api/activity/{task.agent_id}/cancel"
    assert web.post(url, headers={**ACT, "Sec-Fetch-Site": "cross-site"}, json={}).status_code == 403
    assert web.post(url, headers={**ACT, "Origin": "https://evil.example"}, json={}).status_code == 403
    assert web.post(url, data={"a": "form"}).status_code == 403
    form = {"X-Agentexec": "1", "Content-Type": "application/x-www-form-urlencoded"}
    assert web.post(url, content="a=form", headers=form).status_code == 415
    assert web.get(f"/api/activity/{task.agent_id}").json()["status"] == "queued"


def test_without_a_login_other_machines_see_nothing() -> None:
    for web in (
        browser(ax.web.dashboard(), client=("10.0.0.5", 1)),
        browser(ax.web.dashboard(), url="http://evil.example"),
    ):
        for path in ("/", "/api/me", "/api/activity"):
            assert web.get(path).status_code == 403


def login(web: TestClient, token: str = TOKEN) -> int:
    return web.post("/api/login", json={"token": token}, headers=ACT).status_code


@pytest.mark.parametrize("from_setting", [False, True])
def test_the_token_logs_in_from_anywhere(monkeypatch: pytest.MonkeyPatch, from_setting: bool) -> None:
    if from_setting:
        monkeypatch.setattr(CONF, "dashboard_token", SecretStr(TOKEN))
    app = ax.web.dashboard() if from_setting else ax.web.dashboard(token=TOKEN)
    web = browser(app, "https://ops.example", ("10.0.0.5", 1))
    assert web.get("/").status_code == 200, "the page itself asks for the token"
    assert "data-login" in web.get("/").text
    assert web.get("/api/me").status_code == 401
    assert login(web, "another token of many") == 403
    assert not web.cookies
    assert web.get("/api/activity").status_code == 401

    answer = web.post("/api/login", json={"token": TOKEN}, headers=ACT)
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "secure" in cookie
    assert TOKEN not in cookie
    assert web.get("/api/me").json()["rights"] == ["read"]

    assert web.post("/api/logout", json={}, headers=ACT).status_code == 204
    assert web.get("/api/me").status_code == 401


def test_an_invalid_login_is_refused_in_a_sentence() -> None:
    with browser(ax.web.dashboard(token=TOKEN)) as web:
        for body in (b"", b"{}", b'{"token": 3}', b"nonsense", b'{"token": "%s"}' % (b"x" * 1_001)):
            answer = web.post("/api/login", content=body, headers={"X-Agentexec": "1"})
            assert answer.status_code == 422
            assert isinstance(answer.json()["detail"], str), answer.text


def test_a_cookie_over_plain_http_works_too() -> None:
    web = browser(ax.web.dashboard(token=TOKEN), "http://10.0.0.1:8765")
    assert login(web) == 204
    assert web.get("/api/me").status_code == 200


def test_a_script_sends_the_token_in_a_header() -> None:
    web = browser(ax.web.dashboard(token=TOKEN), client=("10.0.0.5", 1))
    assert web.get("/api/me", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    for value in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer " + "x" * 5000):
        assert web.get("/api/me", headers={"Authorization": value}).status_code == 401
    assert web.get(f"/api/me?token={TOKEN}").status_code == 401, "never in a URL"


def test_another_site_cannot_log_a_browser_in() -> None:
    web = browser(ax.web.dashboard(token=TOKEN))
    foreign = {**ACT, "Sec-Fetch-Site": "cross-site"}
    assert web.post("/api/login", json={"token": TOKEN}, headers=foreign).status_code == 403
    assert not web.cookies


def user(x_user: str | None = Header(None)) -> str:
    if x_user is None:
        raise HTTPException(401, "Sign in first.")
    return x_user


def caller(name: str = Depends(user)) -> ax.web.Caller:
    labels = None if name == "root" else {"tenant": name}
    return ax.web.Caller(name, act=name == "root", metadata_filter=labels)


def test_with_a_caller_the_application_decides_who_sees_what() -> None:
    app = FastAPI()
    app.mount("/agentexec", ax.web.dashboard(caller=caller))
    web = browser(app, "https://ops.example", ("10.0.0.5", 1))
    mine = ax.enqueue_sync("work", {"key": "one"}, metadata={"tenant": "alice"})
    ax.enqueue_sync("work", {"key": "two"}, metadata={"tenant": "bob"})
    assert web.get("/agentexec/").status_code == 200
    assert "data-login" not in web.get("/agentexec/").text
    assert web.get("/agentexec/api/activity").status_code == 401
    assert web.post("/agentexec/api/login", json={"token": TOKEN}, headers=ACT).status_code == 404
    alice, root = {"X-User": "alice"}, {"X-User": "root"}
    found = web.get("/agentexec/api/activity", headers=alice).json()["items"]
    assert [item["agent_id"] for item in found] == [str(mine.agent_id)]
    assert web.get("/agentexec/api/activity", headers=root).json()["total"] == 2
    url = f"/agentexec/api/activity/{mine.agent_id}/cancel"
    assert web.post(url, headers={**ACT, **alice}, json={}).status_code == 403
    assert web.post(url, headers={**ACT, **root}, json={}).json() == {"changed": True}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"caller": caller, "token": TOKEN}, "either caller= or token="),
        ({"caller": caller, "allow_acts": True}, "leave out allow_acts="),
        ({"token": "short"}, "16 characters"),
        ({"token": ""}, "16 characters"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ax.UsageError, match=sentence):
        ax.web.dashboard(**arguments)

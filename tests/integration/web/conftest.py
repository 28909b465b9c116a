"""An application with the whole HTTP API, whose callers say who they are in headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.testclient import TestClient

import agentexec as ax
from agentexec.config import CONF
from tests.deployment import Deployment

KEY = "a key of read tokens"


def caller(
    x_name: Annotated[str | None, Header()] = None,
    x_tenant: Annotated[str | None, Header()] = None,
    x_rights: Annotated[str, Header()] = "read",
) -> ax.web.Caller | None:
    if x_name is None:
        raise HTTPException(401, "Sign in.")
    if x_name == "nobody":
        return None
    labels = None if x_tenant is None else {"tenant": x_tenant}
    return ax.web.Caller(x_name, read="read" in x_rights, act="act" in x_rights, metadata_filter=labels)


def headers(name: str = "alice", tenant: str | None = None, rights: str = "read,act") -> dict[str, str]:
    found = {"X-Name": name, "X-Rights": rights, "Content-Type": "application/json"}
    return found if tenant is None else {**found, "X-Tenant": tenant}


@pytest.fixture
def deployment(tmp_path: Any, sqlite_tables: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setattr(CONF, "read_token_key", KEY)
    deployment = Deployment(tmp_path, sqlite_tables)
    yield deployment
    deployment.close()


@pytest.fixture
def app(deployment: Deployment) -> FastAPI:
    app = FastAPI()
    app.include_router(ax.web.router(caller=caller), prefix="/api")
    return app


@pytest.fixture
def web(app: FastAPI) -> Iterator[TestClient]:
    """Client of the API, as alice, who may act and sees every tenant."""
    with TestClient(app, base_url="http://test/api", headers=headers()) as client:
        yield client

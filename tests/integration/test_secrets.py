"""No secret comes into the record, the log, a message or the answer of a command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Secret, SecretStr, field_serializer
from sqlalchemy import create_engine, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.engine import open_engine
from agentexec.db.errors import translating_db_errors
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError, UsageError
from agentexec.journal.models import Approval, EventWait
from agentexec.runtime import RUNTIME
from agentexec.state import redis_backend
from tests.deployment import Deploy, on_targets, run_agentexec
from tests.servers import HOST, free_port
from tests.waiting import patient

SECRET = "hunter2hunter2"


@on_targets("embedded")
def test_what_a_handler_raises_is_stored_and_logged_without_secrets(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.environment["CRM_TOKEN"] = "no pattern knows this"
    deployment.start()
    task = deployment.enqueue(
        "fail",
        f"redis://u:{SECRET}@host/0 sk-{SECRET} no pattern knows this password={SECRET} Bearer {SECRET}xyz",
    )
    detail = deployment.wait_for_status(task, "error")
    told = [detail.error or "", *(line.message for line in detail.logs), deployment.log]
    assert "redis://u:***@host/0 sk-*** *** password=*** Bearer ***" in told[0]
    assert "Traceback" in told[0]
    for words in told:
        assert SECRET not in words and "no pattern knows" not in words


def test_errors_that_the_application_reports_are_stored_without_secrets(sqlite_url: str) -> None:
    ax.configure(database_url=sqlite_url)
    ax.Base.metadata.create_all(RUNTIME.engine)
    try:
        agent_id = ax.activity.create("t")
        ax.activity.error(agent_id, f"mysql://u:{SECRET}@host/db")
        with reading(RUNTIME.engine) as connection:
            for table in ax.Base.metadata.sorted_tables:
                assert SECRET not in str(connection.execute(table.select()).all())
    finally:
        RUNTIME.close()


def test_statements_keep_their_parameters_to_themselves(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    with pytest.raises(DBAPIError) as caught, engine.connect() as connection:
        connection.execute(text("SELECT no_such_function(:context)"), {"context": SECRET})
    assert SECRET not in str(caught.value)
    engine.dispose()


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+pymysql"])
def test_an_unreachable_database_is_named_without_its_password(driver: str) -> None:
    engine = open_engine(f"{driver}://user:{SECRET}@{HOST}:{free_port()}/db")
    with pytest.raises(UnavailableError) as caught, translating_db_errors(engine), engine.connect():
        pass
    assert SECRET not in str(caught.value)
    assert HOST in str(caught.value)


def test_a_wrong_password_is_not_repeated(valkey_url: str) -> None:
    url = valkey_url.replace("//", f"//user:{SECRET}@")
    backend = redis_backend.create(Settings(redis_url=url), create_engine("sqlite://"))
    with pytest.raises(UsageError) as caught:
        backend.ping()
    assert SECRET not in str(caught.value)


@pytest.mark.thorough
def test_a_command_says_nothing_secret(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(f"raise RuntimeError('redis://u:{SECRET}@host and sk-{SECRET}')\n")
    variables = {
        "AGENTEXEC_SIGNING_KEY": SECRET * 2,
        "AGENTEXEC_DATABASE_URL": f"mysql://u:{SECRET}@{HOST}:1/x",
    }
    for arguments in (["worker", "broken", "--traceback"], ["doctor", "broken"], ["list", "--traceback"]):
        done = run_agentexec(*arguments, cwd=tmp_path, **variables)
        assert done.returncode != 0
        assert SECRET not in done.stdout + done.stderr, arguments
        assert "***" in done.stdout + done.stderr


class Login(BaseModel):
    user: str
    password: SecretStr = SecretStr("")


class Shown(Login):
    @field_serializer("password")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Deep(BaseModel):
    logins: list[Login]
    extra: Any = None


@pytest.mark.parametrize(
    ("context", "field"),
    [
        (Login(user="u", password=SecretStr(SECRET)), "password"),
        (Deep(logins=[Login(user="u", password=SecretStr(SECRET))]), "logins.0.password"),
        (Deep(logins=[], extra={"pin": Secret[int](1234)}), "extra.pin"),
        ({"login": Login(user="u", password=SecretStr(SECRET))}, "login.password"),
    ],
)
def test_a_context_with_a_secret_is_refused(sqlite_url: str, context: Any, field: str) -> None:
    ax.configure(database_url=sqlite_url)
    try:
        with pytest.raises(
            UsageError, match=f"holds a secret in {field}, which would be stored as"
        ) as caught:
            ax.enqueue_sync("t", context)
        assert SECRET not in str(caught.value)
        ax.Base.metadata.create_all(RUNTIME.engine)
        # Nothing secret in these: an empty one, plain stars, and one that its model writes out on purpose.
        ax.enqueue_sync("t", Login(user="*" * 10))
        ax.enqueue_sync("t", Shown(user="u", password=SecretStr(SECRET)))
    finally:
        RUNTIME.close()


DOCS = Path(__file__).parents[2] / "docs" / "security.md"


def test_the_grants_in_the_docs_are_enough_for_a_web_app(
    postgres_url: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = open_engine(postgres_url)
    ax.Base.metadata.create_all(owner)
    [grants] = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    with owner.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS web"))
        connection.execute(text("CREATE ROLE web LOGIN PASSWORD 'web'"))
        connection.execute(text(grants))
    monkeypatch.setattr(ax.CONF, "redis_url", valkey_url)
    ax.configure(database_url=owner.url.set(username="web", password="web").render_as_string(False))
    try:
        ended, waiting, canceled = (
            ax.enqueue_sync("t", {}, metadata={"a": 1}),
            ax.enqueue_sync("t", {}),
            ax.enqueue_sync("t", {}),
        )
        with owner.begin() as connection:
            row = {
                "agent_id": waiting.agent_id,
                "path": "p",
                "seq": 0,
                "call_id": "c",
                "kind": "approval",
                "tool": "t",
            }
            row |= {"arguments": "{}", "status": "pending", "created_at": utc_now()}
            connection.execute(insert(Approval).values(**row))
            row = {
                "agent_id": waiting.agent_id,
                "path": "q",
                "name": "come",
                "key": "",
                "created_at": utc_now(),
            }
            connection.execute(insert(EventWait).values(**row))
        ax.activity.complete(ended.agent_id)
        assert ax.cancel_sync(canceled) and ax.retry_sync(canceled)
        assert ax.get_result_sync(ended, patient(5)) is None
        assert ax.approve_sync(waiting, "c")
        assert ax.send_event_sync("come", "", 1) == 1
        with Session(RUNTIME.engine) as db:
            assert ax.activity.list(db, text="t", metadata_filter={"a": 1}).total == 1
            assert ax.activity.detail(db, ended.agent_id).status == "complete"
            assert ax.activity.overview(db).queued == 2
            assert ax.activity.spent(db).usage.requests == 0
            assert ax.approvals.list(db) == []
        assert list(ax.activity.stream(ended.agent_id))
        with pytest.raises(DBAPIError, match="permission denied"), RUNTIME.engine.begin() as connection:
            connection.execute(text("DELETE FROM agentexec_journal"))
    finally:
        RUNTIME.close()
        with owner.begin() as connection:
            connection.execute(text("DROP OWNED BY web"))
            connection.execute(text("DROP ROLE web"))
        owner.dispose()

"""The monitor's screen and keys, on consoles of many sizes over a real database."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from rich.cells import cell_len
from rich.console import Console
from sqlalchemy import Engine, event, insert
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import ActivityLog, WorkerProcess
from agentexec.cli.screen import app
from agentexec.cli.screen.data import Query, load_detail, load_snapshot
from agentexec.db.clock import utc_now
from agentexec.journal.models import Approval, JournalEntry
from agentexec.runtime import RUNTIME
from bench import sample_record
from tests.waiting import wait_until


class SilentKeys:
    """Keyboard of the tests, which press the keys themselves."""

    def wake(self) -> None:
        """Do nothing: no thread waits for a key."""


class Screen:
    """A monitor without a terminal: tests press its keys and read its lines."""

    def __init__(self, width: int, height: int, query: Query) -> None:
        self.dashboard: Any = app.Dashboard(query, 3600)
        self.refresher: Any = self.dashboard._refresher
        self.resize(width, height)
        self.settle()

    def resize(self, width: int, height: int) -> None:
        console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
        self.dashboard._picture.console = console

    def press(self, *keys: str) -> None:
        for key in keys:
            self.dashboard._press(key)
        self.settle()

    def write(self, text: str) -> None:
        self.press("/", *["backspace"] * 60, *text, "enter")

    def settle(self) -> None:
        """Wait until everything that was requested is shown."""

        def settled() -> bool:
            self.refresher.update(self.dashboard._picture.rows)
            return self.refresher.settled

        wait_until(settled)

    def refresh(self) -> None:
        self.refresher.request()
        self.settle()

    @property
    def lines(self) -> list[str]:
        console = self.dashboard._picture.console
        console.file = io.StringIO()
        console.print(self.dashboard._picture.render())
        return str(console.file.getvalue()).splitlines()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


Open = Callable[..., Screen]


@pytest.fixture
def engine(sqlite_tables: str) -> Iterator[Engine]:
    ax.configure(database_url=sqlite_tables)
    yield RUNTIME.engine
    RUNTIME.close()


@pytest.fixture
def watch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setattr(app, "Keys", SilentKeys)
    return lambda width=80, height=24, query=None: Screen(width, height, query or Query())


def add_workers(engine: Engine, number: int, *, lost: int = 0) -> None:
    now = utc_now()
    rows = [
        {
            "worker_id": f"w{at}",
            "queue": "agentexec_tasks",
            "host": f"host{at}",
            "pid": at,
            "concurrency": 10,
            "running": at % 10,
            "draining": False,
            "cpu_percent": 1.0,
            "rss_bytes": 50_000_000,
            "started_at": now,
            "seen_at": now - timedelta(seconds=60 if at < lost else 0),
        }
        for at in range(number)
    ]
    with engine.begin() as connection:
        connection.execute(insert(WorkerProcess), rows)


def add_question(engine: Engine, agent_id: UUID, arguments: str) -> None:
    row = {
        "agent_id": agent_id,
        "path": "A#1/call_1",
        "seq": 0,
        "call_id": "call_1",
        "kind": "approval",
        "tool": "send_email",
        "arguments": arguments,
        "status": "pending",
        "created_at": utc_now(),
    }
    with engine.begin() as connection:
        connection.execute(insert(Approval), [row])


def statements(engine: Engine, work: Callable[[Session], Any]) -> int:
    """Return the number of SELECT statements."""
    executed: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        executed.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        with Session(engine) as db:
            work(db)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len([statement for statement in executed if "SELECT" in statement.upper()])


# ---- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", [Query(), Query(metadata={"tenant": "t0", "user": "u8"}), Query(text="acme")]
)
def test_a_refresh_takes_a_few_statements_however_many_tasks_there_are(engine: Engine, query: Query) -> None:
    def count() -> int:
        return statements(engine, lambda db: load_snapshot(db, query, 40, 0))

    few = count()
    sample_record.fill(engine, 2_000, 1)
    add_workers(engine, 30)
    assert few == count() <= 6


def test_details_take_no_more_statements_with_a_long_log(engine: Engine) -> None:
    agent_id = ax.activity.create("job")

    def count() -> int:
        return statements(engine, lambda db: load_detail(db, agent_id, Query()))

    few = count()
    line = {"activity_id": agent_id, "created_at": utc_now(), "status": "RUNNING", "message": "x"}
    with engine.begin() as connection:
        connection.execute(insert(ActivityLog), [{**line, "status": ax.Status.RUNNING}] * 2_000)
    assert few == count() <= 11


# ---- screens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(40, 6), (40, 12), (80, 24), (200, 50)])
def test_a_screen_fits_and_ends_with_its_keys(engine: Engine, watch: Open, width: int, height: int) -> None:
    sample_record.fill(engine, 200, 1)
    ax.activity.create("日本語の仕事", "進捗 🚀 e\u0301 \x1b[31m\u202e " * 20)
    add_workers(engine, 30, lost=1)
    screen = watch(width, height)
    for state in ("list", "question"):
        lines = screen.lines
        assert len(lines) <= height
        assert max(map(cell_len, lines)) <= width
        assert "\x1b" not in screen.text and "\u202e" not in screen.text
        assert any(word in screen.text for word in ("queued", "running")), "a task is visible"
        assert ("y: yes" if state == "question" else "? help") in lines[-1]
        screen.press("c")
    if height >= 12:
        assert "30 worker processes" in screen.text and "1 LOST" in screen.text
    if height >= 24:
        assert "host0 " in screen.text, "the lost one has its own line"


def test_columns_stay_aligned_with_wide_characters(engine: Engine, watch: Open) -> None:
    ax.activity.create("ascii", "START ascii")
    ax.activity.create("日本語の仕事", "START 進捗 🚀")
    found = [line for line in watch().lines if "START" in line]
    assert len({cell_len(line[: line.index("START")]) for line in found}) == 1 and len(found) == 2


def test_long_lines_of_details_are_wrapped_not_cut(engine: Engine, watch: Open) -> None:
    agent_id = ax.activity.create("job", "begin " + "word " * 40 + "theend")
    ax.activity.error(agent_id, "x" * 300 + "LAST")
    screen = watch(60, 40)
    screen.press("enter")
    assert "theend" in screen.text and "LAST" in screen.text
    screen.resize(100, 40)
    assert max(map(len, screen.lines)) > 60
    screen.resize(60, 10)
    screen.press("end")
    assert "LAST" in screen.text
    screen.press("home")
    assert "job" in screen.lines[0]


def test_an_open_task_shows_what_it_was_asked_and_what_it_waits_for(engine: Engine, watch: Open) -> None:
    context = {"company": "Acme \x1b[2J\u202e", "api_key": "hunter22", "text": "x" * 5_000}
    agent_id = ax.enqueue_sync("job", context, delay=250, metadata={"tenant": "a"}).agent_id
    screen = watch(120, 60)
    assert "starts in 4m" in screen.text
    screen.press("enter")
    for part in (
        "queue agentexec_tasks  priority low",
        "starts in 4m",
        r'"company": "Acme \u001b[2J\u202e"',
        '"api_key": "***"',
        'metadata:  {"tenant": "a"}',
        "4000 more characters; agentexec show",
    ):
        assert part in screen.text
    assert "hunter22" not in screen.text and "\x1b" not in screen.text and "\u202e" not in screen.text
    add_question(engine, agent_id, '{"to": "a"}')
    screen.refresh()
    assert 'waits for approval of send_email({"to": "a"})' in screen.text


def test_a_refresh_of_an_open_task_does_not_read_its_context_again(engine: Engine) -> None:
    agent_id = ax.enqueue_sync("job", {"key": "first"}).agent_id
    with Session(engine) as db:
        known = load_detail(db, agent_id, Query())
        assert known.view.contents.context == '{"key": "first"}'
    few = statements(engine, lambda db: load_detail(db, agent_id, Query(), known))
    assert few == statements(engine, lambda db: load_detail(db, agent_id, Query())) - 1
    assert ax.cancel_sync(agent_id)
    with Session(engine) as db:
        assert load_detail(db, agent_id, Query(), known).activity.status is ax.Status.CANCELED


def test_steps_name_the_tools_but_not_their_arguments(engine: Engine, watch: Open) -> None:
    agent_id = ax.activity.create("job")

    def fact(path: str, seq: int, kind: str, value: Any) -> dict[str, Any]:
        at = utc_now() + timedelta(milliseconds=len(rows))
        return {
            "agent_id": agent_id,
            "path": path,
            "seq": seq,
            "kind": kind,
            "input_hash": "",
            "value": json.dumps(value),
            "epoch": 1,
            "created_at": at,
        }

    rows: list[dict[str, Any]] = []
    called = {"type": "function_call", "name": "lookup", "call_id": "call_1", "arguments": "SECRET"}
    rows.append(fact("A#1", 1, "model", {"output": [called]}))
    rows.append(fact("A#1/call_1", 0, "outcome", {"text": "boom", "error": True}))
    rows.append(fact("A#1/call_2", 0, "intent", {"name": "send", "arguments": "SECRET"}))
    rows.append(fact("B#1", 0, "model", {"output": [{"text": "x" * 5000}, called]}))
    with engine.begin() as connection:
        connection.execute(insert(JournalEntry), rows)
    screen = watch()
    screen.press("enter")
    steps = [" ".join(line.split()[2:]) for line in screen.lines if "epoch" in line]
    assert steps == [
        "model epoch 1 A#1 calls lookup",
        "outcome epoch 1 A#1/call_1 lookup failed",
        "intent epoch 1 A#1/call_2 send",
        "model epoch 1 B#1",
    ]
    assert "SECRET" not in screen.text


# ---- keys --------------------------------------------------------------------------------------------------


def test_the_outcome_of_a_key_stays_after_the_next_refresh(engine: Engine, watch: Open) -> None:
    ax.activity.create("job")
    screen = watch()
    for keys, said in (
        (["r", "y"], "Only failed and canceled tasks can be retried."),
        (["a"], "No call of this task waits for approval."),
        (["c", "y"], "is canceled."),
        (["c", "y"], "has already ended."),
    ):
        screen.press(*keys)
        screen.refresh()
        assert said in screen.lines[-1]
    screen.write("status:late")
    screen.refresh()
    assert "There is no status late." in screen.lines[-1]
    screen.press("j")
    assert "? help" in screen.lines[-1], "the message stays until the next key"


def test_a_paused_monitor_still_shows_what_the_user_opens_or_filters(engine: Engine, watch: Open) -> None:
    ax.activity.create("job", "first words")
    screen = watch()
    screen.press("p")
    ax.activity.create("other")
    assert "PAUSED" in screen.text
    screen.refresher._next_refresh = 0.0
    screen.settle()
    assert "other" not in screen.text
    screen.press("enter")
    assert "── log ──" in screen.text
    screen.press("escape")
    screen.write("other")
    assert "queued    other" in screen.text
    assert screen.refresher.timeout() >= 1, "it does not redraw in a busy loop"


def test_a_refresh_in_progress_when_paused_changes_nothing(engine: Engine, watch: Open) -> None:
    ax.activity.create("job")
    screen = watch()
    ax.activity.create("other")
    late = screen.refresher.read_page(Query(), 20, 0, False)
    screen.press("p")
    late()
    assert "PAUSED" in screen.text and "other" not in screen.text
    screen.press("p")
    assert "other" in screen.text


def test_the_selected_task_stays_selected_when_others_arrive(engine: Engine, watch: Open) -> None:
    tasks = [ax.activity.create(f"job{number}") for number in range(3)]
    screen = watch()
    screen.press("j")
    ax.activity.create("newer")
    screen.refresh()
    screen.press("c")
    assert f"Cancel task {tasks[1]}?" in screen.text


def test_a_question_shows_all_arguments_of_a_call(engine: Engine, watch: Open) -> None:
    agent_id = ax.activity.create("clerk")
    add_question(engine, agent_id, json.dumps({"to": "ann", "text": "Dear Ann, " + "word " * 60 + "theend"}))
    screen = watch(40, 40)
    screen.press("a")
    assert "Approve send_email(" in screen.text and "theend" in screen.text
    screen.resize(40, 12)
    lines = screen.lines
    assert len(lines) <= 12 and lines[-1].startswith("y: yes")
    assert "Enter shows all of it" in screen.text


def test_details_of_one_task_are_not_shown_for_another(engine: Engine, watch: Open) -> None:
    first, second = ax.activity.create("first"), ax.activity.create("second")
    screen = watch()
    screen.press("enter")
    late = screen.refresher.read_detail(second, Query(), True)
    screen.press("escape", "j", "enter")
    late()
    assert str(first) in screen.text and str(second) not in screen.text

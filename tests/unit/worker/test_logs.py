"""Log lines name the process and the task that they come from, as text and as JSON."""

from __future__ import annotations

import contextvars
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from agentexec.config import CONF
from agentexec.telemetry.current import CURRENT_ATTEMPT, RunningAttempt
from agentexec.worker import logs
from agentexec.worker.failure_log import log_failure

ID = UUID("0190a6e2-7d4f-7c3a-9d55-0242ac120002")


@pytest.fixture(autouse=True)
def loggers_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root, ours, warned = (logging.getLogger(name) for name in (None, "agentexec", "py.warnings"))
    last = logging.lastResort
    before = [
        (logger, list(logger.handlers), logger.level, logger.propagate) for logger in (root, ours, warned)
    ]
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(CONF, "log_format", "text")
    formats = [(handler, handler.formatter) for handler in root.handlers]
    yield
    logging.lastResort = last
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    for handler, formatter in formats:
        handler.setFormatter(formatter)


def set_up() -> None:
    """Set up the log of a worker process whose application has no handlers of its own."""
    logging.getLogger().handlers = []  # pytest's
    logs.set_up("worker-1", CONF, handles_tasks=True)


def in_task(call: Callable[[], object]) -> None:
    def run() -> None:
        CURRENT_ATTEMPT.set(RunningAttempt("research", ID, 2))
        call()

    contextvars.copy_context().run(run)


def test_a_text_line_has_date_zone_process_pid_and_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    logging.getLogger("agentexec.worker").info("claimed")
    in_task(lambda: logging.getLogger("myapp").info("looking"))
    first, second = capsys.readouterr().err.splitlines()
    pid = logging.makeLogRecord({}).process
    assert first[10] == "T" and first[19:] == f"Z INFO    worker-1[{pid}]: claimed"
    assert second[19:] == (f"Z INFO    worker-1[{pid}] task=research agent_id={ID} attempt=2 myapp: looking")


def test_a_json_line_has_the_task_the_extra_fields_and_the_traceback_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_API_KEY", "abcdefghijkl")
    monkeypatch.setattr(CONF, "log_format", "json")
    set_up()

    def fail() -> None:
        try:
            raise ValueError("bad\x1b key abcdefghijkl\nin two lines")
        except ValueError:
            extra = {
                "tenant": "acme",
                "size": {"rows": 3, "share": float("nan")},
                "key": "abcdefghijkl",
                "at": ID,
            }
            logging.getLogger("myapp").exception("failed \udce9", extra=extra)

    in_task(fail)
    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert line["time"].endswith("Z") and line["pid"] and line["process"] == "worker-1"
    assert (line["task"], line["agent_id"], line["attempt"]) == ("research", str(ID), 2)
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "myapp", "failed \\udce9")
    assert (line["tenant"], line["size"], line["at"]) == ("acme", {"rows": 3, "share": "nan"}, str(ID))
    assert "ValueError: bad\N{REPLACEMENT CHARACTER} key ***\nin two lines" in line["error"]
    assert "abcdefghijkl" not in text


def test_the_fields_of_a_json_line_cannot_be_replaced_by_extra_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CONF, "log_format", "json")
    set_up()
    in_task(
        lambda: logging.getLogger("myapp").warning("x", extra={"task": "mine", "agent_id": "mine", "pid": 0})
    )
    line = json.loads(capsys.readouterr().err)
    assert (line["task"], line["agent_id"], line["pid"] > 0) == ("research", str(ID), True)


def test_prints_become_json_lines_of_their_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CONF, "log_format", "json")
    set_up()
    in_task(lambda: print("one\ntwo", end="", flush=True))
    in_task(lambda: print("three", file=sys.stderr))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["message"], line["task"]) for line in lines] == [
        ("stdout", "one", "research"),
        ("stdout", "two", "research"),
        ("stderr", "three", "research"),
    ]


def test_what_python_prints_about_errors_is_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CONF, "log_format", "json")
    set_up()

    def fail() -> None:
        raise ValueError("boom")

    thread = threading.Thread(target=fail, name="mine")
    thread.start()
    thread.join()
    logging.getLogger("myapp").warning("bad format %d", "x")
    ended, *complaint = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert ended["message"] == "Thread mine ended with an error."
    assert "ValueError: boom" in ended["error"]
    assert any("TypeError" in line["message"] for line in complaint)


@pytest.mark.parametrize("handles_tasks", [False, True])
def test_a_warning_is_one_json_line(
    handles_tasks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the worker processes start, too: while the module is imported."""
    monkeypatch.setattr(CONF, "log_format", "json")
    logging.getLogger().handlers = []  # pytest's
    logs.set_up("worker-1", CONF)
    if handles_tasks:
        logs.set_up("worker-1", CONF, handles_tasks=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # catch_warnings has put Python's own writer back
        warnings.warn("deprecated by me", UserWarning, stacklevel=1)
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line["logger"] == "py.warnings" and "deprecated by me" in line["message"]


def test_a_failed_task_has_its_traceback_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CONF, "log_format", "json")
    set_up()
    log_failure(logging.getLogger("agentexec.worker"), "research", ID, "ValueError: boom\nTraceback …")
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == f"Task research {ID} failed: ValueError: boom"
    assert line["error"].endswith("Traceback …")


def test_handlers_of_the_application_stay_and_write_json_only_if_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, to_file, own = logging.getLogger(), logging.StreamHandler(io.StringIO()), logging.StreamHandler()
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(logging.Formatter("mine %(message)s"))
    own.setFormatter(type("Own", (logging.Formatter,), {})("own %(message)s"))
    root.handlers = [to_stderr, to_file, own]
    root.setLevel(logging.ERROR)
    logs.set_up("worker-1", CONF, handles_tasks=True)
    logging.getLogger("myapp").error("text")
    logging.getLogger("myapp").warning("below the level of the application")
    assert capsys.readouterr().err == "mine text\nown text\n"
    monkeypatch.setattr(CONF, "log_format", "json")
    logs.set_up("worker-1", CONF, handles_tasks=True)
    logging.getLogger("myapp").error("json")
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["message"] == "json" and second == "own json"
    assert to_file.stream.getvalue() == "text\njson\n"


def test_at_the_level_info_requests_of_models_are_not_logged_one_by_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    httpx = logging.getLogger("httpx")
    monkeypatch.setattr(httpx, "level", logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    set_up()
    httpx.info("HTTP Request: POST https://api.openai.com/v1/responses")
    assert capsys.readouterr().err == ""

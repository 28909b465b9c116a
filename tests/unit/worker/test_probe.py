"""A probe judges by the heartbeat file, which is always whole."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from agentexec.errors import SettingsError
from agentexec.worker import probe as health
from agentexec.worker.probe import (
    FAILING_SECONDS,
    STALE_SECONDS,
    HeartbeatFile,
    HeartbeatRecord,
    check,
    judge,
    read,
)

NOW = 1_800_000_000.0
READY = HeartbeatRecord(pid=7, time=NOW, state="ready", workers_alive=4, workers_wanted=4)


@pytest.mark.parametrize(
    ("beat", "alive", "ready"),
    [
        (READY, True, True),
        (replace(READY, workers_alive=1), True, True),
        (replace(READY, workers_alive=0), True, False),
        (replace(READY, state="starting", workers_alive=0), True, False),
        (replace(READY, state="draining"), True, False),
        (replace(READY, time=NOW - STALE_SECONDS + 1), True, True),
        (replace(READY, time=NOW - STALE_SECONDS - 1), False, False),
        (replace(READY, time=NOW + STALE_SECONDS + 1), False, False),
        (replace(READY, failing_seconds=FAILING_SECONDS - 1), True, True),
        (replace(READY, failing_seconds=FAILING_SECONDS + 1), False, False),
    ],
    ids=[
        "ready",
        "one process is enough",
        "no process",
        "starting",
        "draining",
        "late",
        "stale",
        "of the future",
        "failing for a moment",
        "failing for long",
    ],
)
def test_a_probe_judges_by_the_last_heartbeat(beat: HeartbeatRecord, alive: bool, ready: bool) -> None:
    assert judge(beat, NOW, ready=False).passes is alive
    assert judge(beat, NOW, ready=True).passes is ready
    text = judge(beat, NOW, ready=True).text
    assert "process 7" in text and text.endswith(".") and "\n" not in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no heartbeat file"),
        (b"", "does not contain the heartbeat of a worker"),
        (b"\xff\xfe", "does not contain the heartbeat of a worker"),
        (b"[1, 2]", "does not contain the heartbeat of a worker"),
        (b'{"pid": 1}', "does not contain the heartbeat of a worker"),
        (json.dumps({**asdict(READY), "time": "now"}).encode(), "does not contain the heartbeat of a worker"),
        (b"[" * 100_000, "does not contain the heartbeat of a worker"),
    ],
    ids=["missing", "empty", "binary", "list", "partial", "wrong type", "nested"],
)
def test_whatever_is_in_the_file_a_probe_fails_in_one_sentence(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "heartbeat.json"
    if content is not None:
        file.write_bytes(content)
    verdict = check(file)
    assert not verdict.passes
    assert said in verdict.text


def test_a_heartbeat_is_there_from_the_start_and_gone_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat.json"
    heartbeat = HeartbeatFile(file, 2)
    assert (read(file).state, read(file).pid, read(file).workers_wanted) == ("starting", os.getpid(), 2)
    heartbeat.update("ready", 2, healthy=True)
    assert check(file, ready=True).passes
    assert list(tmp_path.iterdir()) == [file], "no draft is left"
    heartbeat.close()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    file, victim = tmp_path / "heartbeat.json", tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".heartbeat.json.{os.getpid()}").symlink_to(victim)
    with pytest.raises(SettingsError):
        HeartbeatFile(file, 2)
    HeartbeatFile(file, 2)
    assert victim.read_text() == "mine"


def test_the_file_of_another_worker_is_not_removed(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat.json"
    heartbeat = HeartbeatFile(file, 2)
    other = {**json.loads(file.read_text()), "pid": os.getpid() + 1}
    file.write_text(json.dumps(other))
    heartbeat.close()
    assert read(file).pid == os.getpid() + 1


def test_the_heartbeat_says_how_long_no_process_has_lasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    file = tmp_path / "heartbeat.json"
    heartbeat = HeartbeatFile(file, 2)
    heartbeat.update("ready", 2, healthy=True)
    for now[0] in (110.0, 170.0):
        heartbeat.update("ready", 1, healthy=False)
    assert read(file).failing_seconds == 70
    assert not check(file).passes
    now[0] = 180.0
    heartbeat.update("ready", 2, healthy=True)
    assert check(file).passes


def test_a_worker_whose_file_cannot_be_written_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Cannot write AGENTEXEC_HEARTBEAT_FILE .*No such file"):
        HeartbeatFile(tmp_path / "nowhere" / "heartbeat.json", 2)


def test_a_file_that_becomes_unwritable_is_logged_once_and_stops_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "agentexec.supervisor")
    monkeypatch.setattr(logging.getLogger("agentexec"), "propagate", True)
    folder = tmp_path / "run"
    folder.mkdir()
    heartbeat = HeartbeatFile(folder / "heartbeat.json", 2)
    (folder / "heartbeat.json").unlink()
    folder.rmdir()
    for now[0] in (102.0, 104.0, 106.0):
        heartbeat.update("ready", 2, healthy=True)
    folder.mkdir()
    for now[0] in (108.0, 110.0):
        heartbeat.update("ready", 2, healthy=True)
    assert [record.message.partition(" ")[2].rpartition(" ")[2] for record in caplog.records] == [
        "directory).",
        "again.",
    ]


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heartbeat = HeartbeatFile(None, 2)
    heartbeat.update("ready", 2, healthy=True)
    heartbeat.close()
    assert list(tmp_path.iterdir()) == []

"""Health is judged by what the processes of a host say, and by how long ago."""

from __future__ import annotations

import time

import pytest

from agentexec.worker import health
from agentexec.worker.health import Health

ALL_WELL = ({"process": "w", "claim": 0.5, "running": 3}, {"process": "m", "database": 1.0, "queue": 2.0})


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(health.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def healthy() -> Health:
    state = Health()
    state.note_turn("ready", lasting=True)
    for report in ALL_WELL:
        state.note_report(report)
    return state


def test_a_worker_is_ready_once_it_claims_and_both_servers_have_answered() -> None:
    state = Health()
    assert state.live().passes and not state.ready().passes
    state.note_turn("ready", lasting=True)
    assert state.ready().text == "No worker process claims tasks."
    state.note_report(ALL_WELL[0])
    assert "database" in state.ready().text
    state.note_report({"process": "m", "database": 0})
    assert "queue" in state.ready().text
    state.note_report(ALL_WELL[1])
    assert state.ready() == (True, "1 worker process(es) take tasks.")


def test_an_outage_makes_a_worker_unready_and_leaves_it_alive(clock: Clock) -> None:
    state = healthy()
    clock.now += 10
    state.note_turn("ready", lasting=True)
    state.note_report({"process": "w", "claim": 1.0})
    state.note_report({"process": "m", "database": 11.0, "queue": 1.0})
    assert state.ready().passes
    clock.now += 5
    assert not state.ready().passes and "database" in state.ready().text
    assert state.live().passes


def test_silence_counts_as_age(clock: Clock) -> None:
    state = healthy()
    clock.now += 12
    assert state.ready().passes
    clock.now += 2.5
    assert state.ready().text == "No worker process claims tasks."
    clock.now += 50
    state.note_report({"process": "new"})
    assert state.sum_of("running") == 0 and state.latest_of("queue") is None


@pytest.mark.parametrize("state", ["starting", "draining"])
def test_a_worker_that_starts_or_drains_is_alive_and_not_ready(state: health.State) -> None:
    host = healthy()
    host.note_turn(state, lasting=True)
    assert host.live().passes and not host.ready().passes


def test_a_hanging_loop_and_processes_that_keep_dying_fail_both_probes(clock: Clock) -> None:
    hangs, dying = healthy(), healthy()
    clock.now += 31
    dying.note_turn("ready", lasting=False)
    assert "hung" in hangs.live().text and not hangs.ready().passes
    assert dying.live().passes
    clock.now += 30
    dying.note_turn("ready", lasting=False)
    assert "lasted" in dying.live().text and not dying.ready().passes


@pytest.mark.parametrize("age", [None, "now", float("nan"), [], True])
def test_what_is_not_an_age_is_not_a_sign_of_life(age: object) -> None:
    state = Health()
    state.note_turn("ready", lasting=True)
    state.note_report({"process": "m", "database": 0, "queue": 0})
    state.note_report({"process": "w", "claim": age})
    assert not state.ready().passes

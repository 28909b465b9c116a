"""One suspect runs at a time, and it stops being one when it ends or waits for others."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.unit.worker.parts import Held, admitted


def test_a_task_one_crash_from_its_end_is_a_suspect() -> None:
    held = Held()
    held.suspects.add([admitted(crashes=1)])
    assert not held.suspects.any_running
    suspect = admitted(crashes=2)
    held.suspects.add([suspect])
    assert held.suspects.any_running
    held.suspects.absolve(suspect.lease.agent_id)
    assert not held.suspects.any_running


def test_a_suspect_and_a_task_that_has_just_started_do_not_run_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, (newcomer, suspect) = Held(), (admitted(), admitted(crashes=2))
    assert held.suspects.may_start
    held.start([newcomer])
    assert not held.suspects.may_start
    held.tasks.free_slot(newcomer.lease.agent_id)
    assert held.suspects.may_start
    held.start([suspect])
    assert held.suspects.on_trial
    assert not held.suspects.may_start
    monkeypatch.setattr("agentexec.worker.suspects.TRIAL_SECONDS", -1.0)
    other = Held()
    other.start([newcomer])
    assert other.suspects.may_start, "it has run for a while"
    other.start([suspect])
    assert not other.suspects.on_trial


def test_only_a_suspect_that_is_absolved_wakes_the_claimer() -> None:
    held = Held()
    suspect, other = admitted(crashes=2), admitted()
    held.start([suspect, other])
    held.suspects.absolve(other.lease.agent_id)
    assert held.absolved == 0
    held.suspects.absolve(suspect.lease.agent_id)
    held.suspects.absolve(suspect.lease.agent_id)
    assert held.absolved == 1


def test_an_absolved_suspect_ends_the_wait_for_a_change() -> None:
    held = Held()
    suspect = admitted(crashes=2)
    held.suspects.add([suspect])
    waiter = threading.Thread(target=held.suspects.wait_for_change, args=(30.0,))
    waiter.start()
    held.suspects.absolve(suspect.lease.agent_id)
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_suspect_that_waits_for_others_is_absolved_once_the_record_has_it() -> None:
    held = Held()
    suspect = admitted(crashes=2)
    held.suspects.add([suspect])
    held.suspects.note_wait(suspect.lease.agent_id)
    assert held.suspects.any_running, "the record still counts its crashes"
    held.run_submitted()
    assert held.record.cleared == [suspect.lease]
    assert not held.suspects.any_running


def test_a_suspect_that_waits_again_is_not_absolved_before_the_record_has_it() -> None:
    held = Held()
    suspect = admitted(crashes=2)
    held.suspects.add([suspect])
    held.suspects.note_wait(suspect.lease.agent_id)
    held.suspects.note_wait(suspect.lease.agent_id)
    assert held.suspects.any_running
    held.run_submitted()
    assert held.record.cleared == [suspect.lease]
    assert not held.suspects.any_running


def test_crashes_are_cleared_once_and_only_where_there_are_any() -> None:
    held = Held()
    crashed, healthy = admitted(crashes=1), admitted()
    held.start([crashed, healthy])
    for task in (crashed, healthy, crashed):
        held.suspects.note_wait(task.lease.agent_id)
    held.run_submitted()
    assert held.record.cleared == [crashed.lease]


def test_a_record_that_is_away_keeps_the_suspicion(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agentexec.worker.suspects.CLEAR_WAIT", 0.0)
    held = Held()
    suspect = admitted(crashes=2)
    held.suspects.add([suspect])
    held.record.failures_left = 3
    held.suspects.note_wait(suspect.lease.agent_id)
    with caplog.at_level(logging.WARNING):
        held.run_submitted()
    assert held.record.cleared == [suspect.lease]
    assert not held.suspects.any_running
    assert len(caplog.records) == 1, "an outage is logged once"


def test_crashes_of_a_task_that_has_ended_are_not_cleared() -> None:
    held = Held()
    suspect = admitted(crashes=2)
    held.suspects.add([suspect])
    held.suspects.note_wait(suspect.lease.agent_id)
    held.suspects.end_attempt(suspect.lease.agent_id)
    held.run_submitted()
    assert held.record.cleared == []
    assert not held.suspects.any_running

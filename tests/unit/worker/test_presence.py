"""A process knows whether the other hosts can have taken its own for dead."""

from __future__ import annotations

from agentexec.config import Settings
from agentexec.runtime import Runtime
from agentexec.worker.host_watch import SILENCE_PART
from agentexec.worker.lease_clock import Instant, present
from agentexec.worker.presence import Presence

TIMEOUT = 100


def ago(seconds: float) -> Instant:
    now = present()
    return Instant(now.running - seconds, now.wall - seconds)


def presence() -> Presence:
    return Presence(
        Runtime(), Settings(host_timeout=TIMEOUT), "worker", lambda: (0, False), task_names=lambda: []
    )


def test_a_gap_between_two_reports_counts_until_a_lease_is_renewed_after_it() -> None:
    reports, silence = presence(), TIMEOUT * SILENCE_PART
    assert reports.was_seen_since(ago(1000)), "before its first report nobody knows it"
    for seconds in (300, 280, 260):
        reports._note_seen(ago(seconds))
    assert not reports.was_seen_since(ago(290)), (
        "no report for longer than it takes until others think it dead"
    )
    reports._note_seen(ago(silence / 2))
    assert not reports.was_seen_since(ago(290)), "a report after a pause does not undo it"
    assert reports.was_seen_since(ago(silence / 2 - 1)), "a lease that was renewed since"
    reports._note_seen(ago(5))
    assert reports.was_seen_since(ago(silence / 2 - 1))


def test_leases_are_looked_at_once_after_a_gap_in_which_others_may_have_taken_them() -> None:
    looks: list[bool] = []
    reports = Presence(
        Runtime(),
        Settings(host_timeout=TIMEOUT),
        "worker",
        lambda: (0, False),
        task_names=lambda: [],
        after_gap=lambda: looks.append(True),
    )
    for seconds in (300, 290, 280, 20, 10, 0):
        reports._note_seen(ago(seconds))
    assert looks == [True]

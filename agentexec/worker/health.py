"""Health of a host's workers, from what its processes say anyway: a probe asks no server."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

from agentexec.worker.probe import FAILING_SECONDS, STALE_SECONDS, State, Verdict

ANSWER_SECONDS = 15.0
"""Seconds without an answer of a server, or without a claim of any worker process, after which no tasks are taken."""

FORGET_SECONDS = 60.0
"""Seconds without a report after which a process is forgotten."""

SERVERS = ("database", "queue")


class _Heard(NamedTuple):
    """The latest report of a process, and the moment at which it came."""

    report: Mapping[str, Any]
    at: float


class Health:
    """State of the supervisor and latest reports of its processes. Threads: any may call everything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turned_at = self._lasting_at = time.monotonic()
        self._state: State = "starting"
        self._heard: dict[str, _Heard] = {}

    def note_turn(self, state: State, *, lasting: bool) -> None:
        """Note a turn of the supervisor's loop; `lasting`: a worker process lasts, or none is supposed to run."""
        now = time.monotonic()
        self._state, self._turned_at = state, now
        if lasting:
            self._lasting_at = now

    def note_report(self, report: Mapping[str, Any]) -> None:
        """Note the report of a process."""
        now = time.monotonic()
        with self._lock:
            self._heard[str(report.get("process"))] = _Heard(report, now)
            self._heard = {
                process: heard for process, heard in self._heard.items() if now - heard.at < FORGET_SECONDS
            }

    def keep_workers(self, process_ids: Set[str]) -> None:
        """Forget what worker processes have said that are gone."""
        with self._lock:
            self._heard = {
                process: heard
                for process, heard in self._heard.items()
                if process in process_ids or "running" not in heard.report
            }

    def live(self) -> Verdict:
        """Judge whether the supervisor works, whatever the servers do."""
        now = time.monotonic()
        if now - self._turned_at > STALE_SECONDS:
            return Verdict(False, f"The supervisor has hung for {now - self._turned_at:.0f} s.")
        if now - self._lasting_at > FAILING_SECONDS:
            return Verdict(False, f"No worker process has lasted for {now - self._lasting_at:.0f} s.")
        return Verdict(True, f"The worker is {self._state}.")

    def ready(self) -> Verdict:
        """Judge whether this host takes tasks."""
        alive = self.live()
        if not alive.passes or self._state != "ready":
            return Verdict(False, alive.text)
        claiming = sum(self._age(heard, "claim") < ANSWER_SECONDS for heard in self._latest("claim"))
        if not claiming:
            return Verdict(False, "No worker process claims tasks.")
        for server in SERVERS:
            age = self.age_of(server)
            if age is None or age >= ANSWER_SECONDS:
                return Verdict(False, f"The {server} has not answered for {ANSWER_SECONDS:.0f} s or longer.")
        return Verdict(True, f"{claiming} worker process(es) take tasks.")

    def serving(self) -> int:
        """Return the number of worker processes that have claimed lately."""
        return sum(self._age(heard, "claim") < ANSWER_SECONDS for heard in self._latest("claim"))

    def age_of(self, server: str) -> float | None:
        """Return the seconds since a server last answered, None if it never has."""
        ages = [self._age(heard, server) for heard in self._latest(server)]
        return min(ages, default=None)

    def sum_of(self, number: str) -> int:
        """Return the sum of a number over the processes that were heard lately."""
        now = time.monotonic()
        values = [heard.report[number] for heard in self._latest(number) if now - heard.at < ANSWER_SECONDS]
        return int(sum(value for value in values if isinstance(value, int | float)))

    def latest_of(self, name: str) -> Any:
        """Return the latest value that any process reported under a name, None if none did lately."""
        heard = max(self._latest(name), key=lambda heard: heard.at, default=None)
        return None if heard is None else heard.report[name]

    def _latest(self, name: str) -> list[_Heard]:
        with self._lock:
            return [heard for heard in self._heard.values() if name in heard.report]

    @staticmethod
    def _age(heard: _Heard, name: str) -> float:
        """Return the seconds since an event, by the age that the report gives; infinite for what is not an age."""
        age = heard.report.get(name)
        if isinstance(age, bool) or not isinstance(age, int | float):
            return float("inf")
        return age + time.monotonic() - heard.at

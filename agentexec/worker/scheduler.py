"""Scheduler: enqueues the tasks of the schedules that this host's module declares, when their ticks are due.

Every host ticks for its own schedules, whoever leads the queue: the record lets one of them succeed at each tick.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from sqlalchemy import Engine

from agentexec.arguments.checks import first_line
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, UnavailableError
from agentexec.outage import Outage, repeat
from agentexec.registry import Registry
from agentexec.schedules.record import ScheduleSchema, declare, find_schedules, forget, tick
from agentexec.schedules.ticks import last_tick, missed_ticks, next_tick

log = logging.getLogger("agentexec.scheduler")

LOOK_SECONDS = 5.0
"""Longest time between two looks at the record, where schedules are paused, resumed and changed."""

MISSED_SECONDS = 300.0
"""Seconds by which a tick may be late, during a restart for example. After that it was missed."""

BACKFILL_CHUNK = 100
"""Missed ticks that are caught up in one turn."""


class Scheduler:
    """Ticks for the schedules of a registry, in the queues of their tasks.

    Threads: `start` runs a thread that does the work.
    """

    def __init__(self, engine: Engine, registry: Registry, queue: str) -> None:
        self._engine = engine
        self._registry = registry
        self._queue = queue
        self._declared = False
        self._outage = Outage(log)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread, if there are schedules."""
        if self._registry.schedules:
            self._thread.start()

    def stop(self) -> None:
        """End the thread after its turn."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_SECONDS)

    def run_once(self, now: datetime) -> float:
        """Enqueue what is due, and return the seconds until the next turn. Raises UnavailableError."""
        if not self._declared:
            for name, definition in self._registry.schedules.items():
                declare(self._engine, self._queue_of(name), [definition])
            self._declared = True
        found = self._find()
        upcoming = [LOOK_SECONDS]
        for name in self._registry.schedules:
            schedule = found.get(name)
            if schedule is None:
                self._declare_again(name)
            elif schedule.paused_at is None and schedule.next_at is not None:
                if schedule.next_at <= now:
                    self._tick(schedule, schedule.next_at, now)
                    upcoming.append(0.05)  # read it again: another tick may be due
                else:
                    upcoming.append((schedule.next_at - now).total_seconds())
        return max(0.0, min(upcoming))

    def _tick(self, schedule: ScheduleSchema, due: datetime, now: datetime) -> None:
        try:
            if schedule.backfill:
                self._catch_up(schedule, due, now)
            else:
                self._skip_missed(schedule, due, now)
        except UnavailableError:
            raise
        except AgentexecError as error:
            # Its context does not fit the task any more, for example. The other schedules must go on.
            log.error("Schedule %s could not enqueue task %s: %s", schedule.name, schedule.task_name, error)
            tick(self._engine, schedule, due, next_tick(schedule.cron, schedule.timezone, now), runs=False)
        except Exception as error:
            # Somebody else has written to its row.
            log.error(
                "Schedule %s cannot tick: %s: %s.", schedule.name, type(error).__name__, first_line(error)
            )
            self._declare_again(schedule.name)

    def _declare_again(self, name: str) -> None:
        """Replace a row that is missing, or that cannot be used, by what the module declares."""
        log.warning("Schedule %s is declared again, and starts over from now.", name)
        forget(self._engine, self._queue_of(name), name)
        declare(self._engine, self._queue_of(name), [self._registry.schedules[name]])

    def _find(self) -> dict[str, ScheduleSchema]:
        queues = {self._queue_of(name) for name in self._registry.schedules}
        return {
            schedule.name: schedule
            for queue in queues
            for schedule in find_schedules(self._engine, queue)
            if schedule.name in self._registry.schedules and self._queue_of(schedule.name) == queue
        }

    def _queue_of(self, name: str) -> str:
        """Return the queue of a schedule: that of its task's definition, if it names one."""
        definition = self._registry.find(self._registry.schedules[name].task_name)
        return self._queue if definition is None or definition.queue is None else definition.queue

    def _catch_up(self, schedule: ScheduleSchema, due: datetime, now: datetime) -> None:
        ticks = missed_ticks(schedule.cron, schedule.timezone, due, now, BACKFILL_CHUNK)
        moved: ScheduleSchema | None = schedule
        for moment in ticks:
            if moved is None or moved.next_at is None:
                return
            following = next_tick(schedule.cron, schedule.timezone, moment)
            moved = tick(self._engine, moved, moment, following)

    def _skip_missed(self, schedule: ScheduleSchema, due: datetime, now: datetime) -> None:
        latest = last_tick(schedule.cron, schedule.timezone, due, now)
        runs = now - latest <= timedelta(seconds=MISSED_SECONDS)
        following = next_tick(schedule.cron, schedule.timezone, latest)
        moved = tick(self._engine, schedule, latest, following, runs=runs)
        if moved is not None and (latest > due or not runs):
            log.warning(
                "Schedule %s has skipped the ticks of %s to %s, which were missed.",
                schedule.name,
                due.isoformat(timespec="seconds"),
                latest.isoformat(timespec="seconds") + (", the last of which runs now" if runs else ""),
            )

    def _run(self) -> None:
        repeat(
            self._stop,
            lambda: self.run_once(utc_now()),
            self._outage,
            away="%s Schedules wait until it is back.",
            failed="The scheduler failed; trying again.",
        )

"""Order of a stream's events: log lines of the record and live events of the state backend become one sequence."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from agentexec.activity.live.encoding import LOG_CHANGED, TEXT_DELTA, ReceivedEvent
from agentexec.activity.live.log_pages import LogPage
from agentexec.activity.schemas import ActivityEvent, EventType
from agentexec.state.backend import EVENT_TTL_SECONDS
from agentexec.task import Status

SILENT_SECONDS = EVENT_TTL_SECONDS / 2
"""Seconds of silence after which the state backend may have restarted its numbering without losing an event."""

FINAL_TYPES: dict[Status, EventType] = {
    Status.COMPLETE: "result",
    Status.ERROR: "error",
    Status.CANCELED: "canceled",
}


class Position(NamedTuple):
    """Position up to which a stream was read: id of a log line, number of a live event. 0: none yet."""

    line: int
    number: int


class EventMerger:
    """Merges both sources of one stream and tracks its position."""

    def __init__(self, position: Position, *, deltas: bool) -> None:
        self.line, self.number = position
        self._deltas = deltas
        self._status: Status | None = None
        self._epoch = 0
        self._received_at: float | None = None

    def merge(
        self, received: Iterable[ReceivedEvent], page: LogPage | None, *, overflowed: bool, now: float
    ) -> list[ActivityEvent]:
        """Return the next events by time. Each source keeps its own order, and the final event comes last.

        `overflowed`: live events were evicted before the stream could take them. `now`: a monotonic clock's seconds.
        """
        lines: deque[Any] = deque()
        if page is not None:
            lines.extend(page.lines)
            self._status = page.previous_status
            received = [*received, *page.live_events]
        events: list[ActivityEvent] = []
        for live_event in sorted(received, key=lambda live_event: live_event.number):
            while lines and _precedes(lines[0], live_event):
                events.append(self._log_event(lines.popleft(), {}))
            events += self._live_events(live_event, overflowed, now)
        ending = page.ending if page is not None else {}
        events += [self._log_event(line, ending) for line in lines]
        return events

    def _log_event(self, line: Any, ending: dict[str, Any]) -> ActivityEvent:
        self.line = line.id
        data: dict[str, Any] = {
            "message": line.message,
            "status": line.status.value,
            "percentage": line.percentage,
        }
        kind: EventType = "log" if line.status is self._status else "status"
        if line.status.final:
            kind, data = FINAL_TYPES[line.status], {**data, **ending}
        self._status = line.status
        return self._event(kind, line.created_at, data)

    def _live_events(self, received: ReceivedEvent, overflowed: bool, now: float) -> list[ActivityEvent]:
        """Return nothing for an event seen before, and `dropped` ahead of one that follows a gap."""
        if received.number <= self.number:
            return []
        gap = self._is_after_gap(received.number, overflowed, now)
        self._received_at = now
        events: list[ActivityEvent] = []
        if gap:
            self.number = received.number - 1
            at = _time_of(received) if received.type is not None else datetime.now(UTC)
            events.append(self._event("dropped", at, {}))
        self.number = received.number
        if self._is_wanted(received):
            kind: Any = received.type
            events.append(self._event(kind, _time_of(received), received.data))
        return events

    def _is_after_gap(self, number: int, overflowed: bool, now: float) -> bool:
        if not self.number:
            return overflowed
        silent = self._received_at is not None and now - self._received_at > SILENT_SECONDS
        return number > self.number + 1 and not silent

    def _is_wanted(self, received: ReceivedEvent) -> bool:
        if received.epoch is not None:
            if received.epoch < self._epoch:
                # A worker that has lost the task may go on publishing for a while, under its older epoch.
                return False
            self._epoch = received.epoch
        if received.type is None or received.type == LOG_CHANGED:
            return False
        return self._deltas or received.type != TEXT_DELTA

    def _event(self, kind: EventType, at: datetime, data: dict[str, Any]) -> ActivityEvent:
        return ActivityEvent(id=f"{self.line}.{self.number}", type=kind, at=at, data=data)


def _precedes(line: Any, live_event: ReceivedEvent) -> bool:
    """True if a log line comes before a live event; an event that cannot be parsed has no time, and comes after."""
    if line.status.final:
        return False
    return live_event.type is None or line.created_at.timestamp() <= live_event.at


def _time_of(received: ReceivedEvent) -> datetime:
    return datetime.fromtimestamp(received.at, UTC)

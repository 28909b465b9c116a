"""Order of a stream's events, gaps included."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from agentexec.activity.live.encoding import ReceivedEvent
from agentexec.activity.live.log_pages import LogPage
from agentexec.activity.live.merge import SILENT_SECONDS, EventMerger, Position
from agentexec.activity.schemas import ActivityEvent
from agentexec.task import Status


def line(number: int, at: float, status: Status = Status.RUNNING) -> Any:
    return SimpleNamespace(
        id=number, created_at=datetime.fromtimestamp(at, UTC), status=status, message="", percentage=None
    )


def live(number: int, at: float = 1.0, kind: str | None = "usage", epoch: int | None = None) -> ReceivedEvent:
    return ReceivedEvent(number, kind, at, epoch, {})


def page(*lines: Any, previous: Status | None = None, **ending: Any) -> LogPage:
    return LogPage(list(lines), previous, ending, over=bool(ending), more=False)


class Reader:
    """Merger of one stream at a settable time."""

    def __init__(self, number: int = 0, *, deltas: bool = True) -> None:
        self.merger = EventMerger(Position(0, number), deltas=deltas)
        self.now = 0.0

    def read(
        self, *received: ReceivedEvent, page: LogPage | None = None, overflowed: bool = False
    ) -> list[ActivityEvent]:
        return self.merger.merge(received, page, overflowed=overflowed, now=self.now)

    def types(self, *received: ReceivedEvent, **options: Any) -> list[str]:
        return [event.type for event in self.read(*received, **options)]


def test_lines_and_live_events_are_ordered_by_time() -> None:
    events = Reader().read(live(1, 2.0), live(2, 4.0), page=page(line(1, 1.0), line(2, 3.0), line(3, 5.0)))
    assert [event.id for event in events] == ["1.0", "1.1", "2.1", "2.2", "3.2"]


def test_live_events_keep_their_order_when_clocks_differ() -> None:
    events = Reader().read(live(2, 1.0), live(1, 9.0))
    assert [event.id for event in events] == ["0.1", "0.2"]


def test_the_final_event_comes_after_live_events_with_a_later_time() -> None:
    events = Reader().read(live(1, 99.0), page=page(line(1, 1.0), line(2, 2.0, Status.COMPLETE), value=7))
    assert [event.type for event in events] == ["status", "usage", "result"]
    assert events[-1].data["value"] == 7


def test_a_line_is_a_status_event_only_when_the_status_changes() -> None:
    reader = Reader()
    assert reader.types(page=page(line(1, 1.0, Status.QUEUED), line(2, 2.0), line(3, 3.0))) == [
        "status",
        "status",
        "log",
    ]
    assert reader.types(page=page(line(4, 4.0), previous=Status.RUNNING)) == ["log"]


def test_an_event_seen_before_is_left_out() -> None:
    reader = Reader()
    reader.read(live(1), live(2))
    assert [event.id for event in reader.read(live(2), live(3))] == ["0.3"]


def test_a_gap_is_reported_once() -> None:
    reader = Reader()
    assert reader.types(live(1), live(5), live(6)) == ["usage", "dropped", "usage", "usage"]


def test_a_gap_after_a_long_silence_is_a_new_numbering() -> None:
    reader = Reader()
    reader.read(live(1))
    reader.now = SILENT_SECONDS + 1
    assert reader.types(live(5)) == ["usage"]


def test_a_first_event_is_after_a_gap_only_if_events_were_evicted() -> None:
    assert Reader().types(live(7)) == ["usage"]
    assert Reader().types(live(7), overflowed=True) == ["dropped", "usage"]


def test_events_of_an_older_epoch_are_left_out() -> None:
    events = [live(1, epoch=1), live(2, epoch=2), live(3, epoch=1), live(4, epoch=2), live(5)]
    assert [event.id for event in Reader().read(*events)] == ["0.1", "0.2", "0.4", "0.5"]


def test_unreadable_events_and_notices_of_log_lines_move_the_position_only() -> None:
    reader = Reader()
    assert reader.read(live(1, kind=None), live(2, kind="log")) == []
    assert reader.merger.number == 2


def test_deltas_can_be_left_out() -> None:
    events = [live(1, kind="text_delta"), live(2)]
    assert Reader().types(*events) == ["text_delta", "usage"]
    assert Reader(deltas=False).types(*events) == ["usage"]

"""The meter counts cheaply, within bounds, and takes only valid counts from other processes."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from agentexec.telemetry.meter import MAX_SERIES, MAX_VALUES, OTHER, Meter, valid_delta
from agentexec.telemetry.names import COUNTED, DURATION, TASKS


def test_what_is_taken_and_merged_elsewhere_adds_up() -> None:
    process, host = Meter(), Meter()
    for length in (0.005, 0.3, 0.4, 9_999):
        process.observe(DURATION, length, "research")
    process.add(TASKS, "research", "complete", amount=2)
    for _ in range(2):
        host.merge(delta for delta in map(parse, json.loads(json.dumps(process.take()))) if delta)
        process.add(TASKS, "research", "complete")
    values = host.values()
    assert values[TASKS.name, ("research", "complete")] == [3]
    *buckets, last, total = values[DURATION.name, ("research",)]
    assert dict(zip(DURATION.buckets, buckets, strict=True))[0.005] == 1
    assert (sum(buckets), last, round(total, 3)) == (3, 1, 9_999.705)


def parse(data: Any) -> Any:
    return valid_delta(data, COUNTED)


def test_names_from_the_queue_are_told_apart_up_to_a_number() -> None:
    meter = Meter()
    for number in range(MAX_VALUES + 50):
        meter.add(TASKS, f"name-{number}", "error")
    values = meter.values()
    assert len(values) == MAX_VALUES + 1
    assert values[TASKS.name, (OTHER, "error")] == [50]


def test_a_report_is_bounded_and_the_rest_is_in_the_next_one() -> None:
    meter = Meter()
    for number in range(MAX_SERIES + 1):
        meter.add(TASKS, f"name-{number}", "error")
    assert [len(meter.take()) for _ in range(3)] == [MAX_SERIES, 1, 0]


def test_threads_lose_no_count() -> None:
    meter = Meter()
    threads = [
        threading.Thread(target=lambda: [meter.add(TASKS, "a", "complete") for _ in range(2_000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.values()[TASKS.name, ("a", "complete")] == [8_000]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [TASKS.name, ["a", "b"]],
        ["unknown", ["a", "b"], [1]],
        [[], ["a", "b"], [1]],
        [TASKS.name, ["a"], [1]],
        [TASKS.name, ["a", 1], [1]],
        [TASKS.name, 7, [1]],
        [TASKS.name, ["a", "b"], [1, 2]],
        [TASKS.name, ["a", "b"], [-1]],
        [TASKS.name, ["a", "b"], [float("nan")]],
        [TASKS.name, ["a", "b"], [float("inf")]],
        [TASKS.name, ["a", "b"], ["x"]],
        [TASKS.name, ["a", "b"], [10**400]],
        [DURATION.name, ["a"], [1]],
    ],
)
def test_what_cannot_be_a_count_is_refused(data: Any) -> None:
    assert valid_delta(data, COUNTED) is None

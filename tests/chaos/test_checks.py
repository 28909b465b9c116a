"""Each check of the chaos runs finds the fault that it is there for, and nothing in a run that is right."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

from agentexec.task import Status
from tests.chaos import checks
from tests.chaos.checks import Check, Evidence
from tests.chaos.names import LIMITED

ID = "0" * 32


def row(agent_type: str = "plain", status: Status = Status.COMPLETE, **more: Any) -> SimpleNamespace:
    values = {"agent_id": ID, "attempt": 1, "crashes": 0, "epoch": 1, "error": None, "parent_id": None}
    return SimpleNamespace(
        agent_type=agent_type, status=status, context=json.dumps({"key": "k"}), **{**values, **more}
    )


def evidence(
    *lines: dict[str, Any],
    rows: dict[str, Any] | None = None,
    delivered: int = 0,
    wrong: tuple[str, ...] = (),
) -> Evidence:
    """Return the evidence of a run with these lines in its ledger."""
    made = object.__new__(Evidence)
    made.events = defaultdict(list)
    for line in lines:
        made.events[line["event"]].append(line)
    made.rows = rows or {}
    made.given_up = []
    receiver = SimpleNamespace(delivered=Counter({ID: delivered}), wrong=list(wrong))
    made.world = SimpleNamespace(redis=None, dynamodb=None, receiver=receiver)  # type: ignore[assignment]
    return made


def locked(event: str, key: str, at: float, **more: Any) -> dict[str, Any]:
    return {"event": event, "kind": "locked", "key": key, "at": at, "id": key, "lock": "0", **more}


ORDERED = [
    locked("offered", "a", 1.0),
    locked("accepted", "a", 1.1),
    locked("offered", "b", 2.0),
    locked("accepted", "b", 2.1),
]
UNPUSHED = {"event": "unpushed", "ids": ["a"]}


def started(key: str, at: float, **more: Any) -> dict[str, Any]:
    return {"event": "start", "key": key, "at": at, **more}


def ran(agent_id: str, start: float, end: float) -> list[dict[str, Any]]:
    run = {"id": agent_id, "epoch": 1, "key": agent_id}
    return [{"event": "start", "at": start, **run}, {"event": "end", "at": end, **run}]


FOUR = {str(number): row(LIMITED) for number in range(4)}
NOTIFIES = {"event": "notifies", "key": "k", "id": ID}
MERGED = [{"event": "merged", "key": "k", "number": number} for number in range(3)]


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            checks.locks_keep_their_order,
            evidence(*ORDERED, started("a", 3.0), started("b", 4.0)),
            evidence(*ORDERED, started("b", 3.0), started("a", 4.0)),
        ),
        (
            checks.locks_keep_their_order,
            evidence(*ORDERED, UNPUSHED, started("b", 3.0), started("a", 4.0)),
            evidence(*ORDERED, {**UNPUSHED, "ids": ["b"]}, started("b", 3.0), started("a", 4.0)),
        ),
        (
            checks.bursts_run_with_the_last_context,
            evidence(*MERGED, started("k", 1.0, number=0), started("k", 2.0, number=2)),
            evidence(*MERGED, started("k", 1.0, number=1)),
        ),
        (
            checks.webhooks_were_delivered,
            evidence(NOTIFIES, rows={ID: row()}, delivered=2),
            evidence(NOTIFIES, rows={ID: row()}),
        ),
        (
            checks.webhooks_were_delivered,
            evidence(NOTIFIES, rows={ID: row(status=Status.RUNNING)}),
            evidence(NOTIFIES, rows={ID: row()}, delivered=1, wrong=("m",)),
        ),
        (
            checks.limits_hold,
            evidence(*ran("0", 0, 1), *ran("1", 0, 1), *ran("2", 0, 1), *ran("3", 1, 2), rows=FOUR),
            evidence(*ran("0", 0, 1), *ran("1", 0, 1), *ran("2", 0, 1), *ran("3", 0.5, 2), rows=FOUR),
        ),
        (
            checks.complete_tasks_have_run,
            evidence({"event": "end", "id": ID}, rows={ID: row()}),
            evidence(rows={ID: row()}),
        ),
        (
            checks.expired_tasks_have_not_run,
            evidence({"event": "expires", "key": "k"}, rows={ID: row(status=Status.CANCELED)}),
            evidence(
                {"event": "expires", "key": "k"},
                started("k", 1.0, id=ID),
                rows={ID: row(status=Status.CANCELED)},
            ),
        ),
    ],
)
def test_a_check_finds_its_fault(check: Check, right: Evidence, wrong: Evidence) -> None:
    assert list(check(right)) == []
    assert len(list(check(wrong))) == 1


def test_a_message_that_was_given_up_is_found() -> None:
    run = evidence()
    run.given_up = [SimpleNamespace(message_id="m", outcome="HTTP 500")]
    assert len(list(checks.webhooks_were_delivered(run))) == 1

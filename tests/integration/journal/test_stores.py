"""The journal store of every database gives the answers of the general store, and leaves its rows."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from agentexec.errors import JournalConflictError, LeaseLostError
from agentexec.journal.facts import Fact, FactKind, Usage
from agentexec.journal.store import Append
from agentexec.task import Status
from tests.stores import Stores, assert_same, at, lease, running, set_row
from tests.tables import copy_database

USAGE = Usage("small", 1, 100, 40, 20)


@pytest.fixture
def reference_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The general store on SQLite is what the others are compared with."""
    return copy_database(
        tmp_path_factory.getbasetemp() / "with_tables.db", tmp_path_factory.mktemp("reference")
    )


def fact(path: str, kind: FactKind = FactKind.MODEL, value: str = "{}", seq: int = 0) -> Fact:
    return Fact(path, seq, kind, "hash", value)


def facts_of_every_kind_are_appended(stores: Stores) -> object:
    running(stores, 0)
    for number, kind in enumerate(FactKind):
        stores.journal.append(lease(0), fact(f"run/{number}", kind, f'"{kind}"'), None, at(number))
        stores.journal.append(lease(0), fact(f"run/{number}", kind, seq=1), None, at(number))
    return None


def usage_is_added_up(stores: Stores) -> object:
    running(stores, 0)
    for number, usage in enumerate((USAGE, None, USAGE, USAGE._replace(model="large"))):
        stores.journal.append(lease(0), fact(f"run/{number}"), usage, at(number))
    return None


def a_recorded_step_resets_the_crash_streak_and_nothing_else_does(stores: Stores) -> object:
    kinds = list(FactKind)
    running(stores, *range(2 * len(kinds)))
    for number in range(2 * len(kinds)):
        set_row(stores, number, crashes=3, crashes_in_row=2)
        usage = USAGE if number >= len(kinds) else None
        stores.journal.append(lease(number), fact("run", kinds[number % len(kinds)]), usage, at(5))
    return None


def a_repeated_append_is_one_row(stores: Stores) -> object:
    running(stores, 0)
    for usage in (None, USAGE):
        path = f"run/{usage is None}"
        for _ in range(2):
            stores.journal.append(lease(0), fact(path), usage, at(1))
        with pytest.raises(JournalConflictError):
            stores.journal.append(lease(0), fact(path, value="[]"), usage, at(2))
    return None


def a_lost_lease_appends_nothing(stores: Stores) -> object:
    running(stores, 0, 1, 2)
    set_row(stores, 0, epoch=2)
    set_row(stores, 1, status=Status.COMPLETE)
    set_row(stores, 2, status=Status.QUEUED, crashes_in_row=2)
    for number in (0, 1, 2, 99):
        for usage in (None, USAGE):
            with pytest.raises(LeaseLostError):
                stores.journal.append(lease(number), fact("run"), usage, at(1))
    return None


def facts_of_several_tasks_are_appended_together(stores: Stores) -> object:
    running(stores, *range(6))
    set_row(stores, 1, crashes=3, crashes_in_row=2)
    set_row(
        stores,
        2,
        crashes=3,
        crashes_in_row=2,
        usage={"small": {"requests": 2, "input_tokens": 7}},
        requests=2,
    )
    set_row(stores, 3, epoch=2)
    set_row(stores, 4, status=Status.COMPLETE)
    appends = [
        Append(lease(0), fact("run", FactKind.INTENT), None, at(5)),
        Append(lease(1), fact("run"), None, at(5)),
        Append(lease(2), fact("run"), USAGE, at(6)),
        Append(lease(3), fact("run"), USAGE, at(6)),
        Append(lease(4), fact("run"), USAGE, at(6)),
        Append(lease(99), fact("run"), None, at(6)),
        Append(lease(2), fact("run/call", FactKind.INTENT), None, at(7)),
        Append(lease(3, epoch=2), fact("other", FactKind.OUTCOME), USAGE._replace(model="large"), at(7)),
        Append(lease(5), fact("run", FactKind.RAISED), None, at(7)),
    ]
    together = sorted(stores.journal.append_together(appends))
    assert together == [0, 1, 2, 6, 7, 8]
    nothing = stores.journal.append_together([appends[3], appends[4]])
    alone = stores.journal.append_together([Append(lease(0), fact("late"), USAGE, at(8))])
    with pytest.raises(IntegrityError):
        stores.journal.append_together([Append(lease(1), fact("new"), None, at(9)), appends[0]])
    return together, sorted(nothing), sorted(alone)


SCENARIOS = [
    facts_of_several_tasks_are_appended_together,
    facts_of_every_kind_are_appended,
    usage_is_added_up,
    a_recorded_step_resets_the_crash_streak_and_nothing_else_does,
    a_repeated_append_is_one_row,
    a_lost_lease_appends_nothing,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_store_gives_the_same_answers_and_leaves_the_same_rows(
    scenario: Any, tables_url: str, reference_url: str
) -> None:
    assert_same(scenario, tables_url, reference_url)

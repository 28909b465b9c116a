"""Turns in the SQL backend: what is stored, and what a claim makes of data that it cannot have stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

import agentexec as ax
from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.db.transactions import writing
from agentexec.state import sql_backend
from agentexec.state.backend import Comparison
from agentexec.state.sql_backend.fair_lanes import MAX_STEP, MAX_TURN, RANK_AT_ONCE, TURN, current_turn, merge
from agentexec.state.sql_models import RANKED, UNRANKED, QueueEntry
from agentexec.task import Entry, Lease
from agentexec.testing.backend_suite.fairness import claim_singly, push_keyed
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim, ids

QUEUE = "fair"
TABLE = QueueEntry.__tablename__


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'fair.db'}")
    ax.Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def backend(engine: Engine) -> sql_backend.SqlBackend:
    return sql_backend.create(Settings(), engine)


def execute(engine: Engine, statement: str, **values: Any) -> list[Any]:
    with writing(engine) as connection:
        result = connection.execute(text(statement), values)
        return [tuple(row) for row in result.all()] if result.returns_rows else []


def lanes(engine: Engine) -> dict[int, int]:
    return dict(execute(engine, f"SELECT lane, COUNT(*) FROM {TABLE} GROUP BY lane"))


def test_a_backlog_has_its_turns_before_the_first_claim(
    engine: Engine, backend: sql_backend.SqlBackend
) -> None:
    few = RANK_AT_ONCE // 2
    push_keyed(backend, QUEUE, "a", few)
    assert lanes(engine) == {UNRANKED + 1: few}, "a claim gives them their turns"
    push_keyed(backend, QUEUE, "a", few)
    with writing(engine) as connection:
        backend.push(QUEUE, [Entry(UUID(int=1), fairness_key="b")], transaction=connection)
    assert lanes(engine) == {RANKED + 1: 2 * few, UNRANKED + 1: 1}
    assert UUID(int=1) in ids(claim(backend, QUEUE, 2))


def test_a_task_of_a_transaction_that_commits_late_comes_before_nobody(
    backend: sql_backend.SqlBackend,
) -> None:
    others = push_keyed(backend, QUEUE, "a", 40)
    claim_singly(backend, QUEUE, 30)
    late = push_keyed(backend, QUEUE, "b", 10)
    claimed = claim_singly(backend, QUEUE, 10)
    assert abs(len({*claimed} & {*late}) - len({*claimed} & {*others})) <= 1


@pytest.mark.parametrize("value", [-1, 0, MAX_TURN, 2**62])
def test_a_forged_counter_keeps_no_key_from_its_turn(
    engine: Engine, backend: sql_backend.SqlBackend, value: int
) -> None:
    push_keyed(backend, QUEUE, "a", 40)
    push_keyed(backend, QUEUE, None, 40)
    claim_singly(backend, QUEUE, 10)
    execute(engine, "UPDATE agentexec_counter SET value = :value WHERE name LIKE 'turn%'", value=value)
    late = push_keyed(backend, QUEUE, "b", 2)
    claimed = ids(claim(backend, QUEUE, 4))
    assert late[0] in claimed
    assert late[1] in [*claimed, *claim_singly(backend, QUEUE, 6)]
    execute(engine, "DELETE FROM agentexec_counter")
    assert len(claim_singly(backend, QUEUE, 20)) == 20


@pytest.mark.parametrize(
    "forged",
    [{"at": MAX_TURN + 1}, {"at": "'soon'"}, {"flow": "NULL"}, {"flow": "'x'"}, {"lane": RANKED + 5}],
)
def test_a_forged_turn_is_found_by_the_record(
    engine: Engine, backend: sql_backend.SqlBackend, forged: dict[str, Any]
) -> None:
    ready = push_keyed(backend, QUEUE, "a", 3)
    [lease] = claim(backend, QUEUE)
    changes = ", ".join(f"{name} = {value}" for name, value in forged.items())
    execute(engine, f"UPDATE {TABLE} SET {changes} WHERE agent_id = :id", id=ready[1].hex)
    found = backend.compare(QUEUE, [Entry(agent_id) for agent_id in ready], LONG_LEASE)
    assert found == Comparison([], [ready[1]])
    assert lease == Lease(ready[0], 1)


@pytest.mark.parametrize(
    "forged", ["step = 0", "step = -5", "step = 'x'", "step = NULL", "flow = 'x'", "flow = NULL"]
)
def test_a_forged_step_stops_no_claim(engine: Engine, backend: sql_backend.SqlBackend, forged: str) -> None:
    pushed = push_keyed(backend, QUEUE, "a", 5)
    execute(engine, f"UPDATE {TABLE} SET {forged} WHERE agent_id = :id", id=pushed[1].hex)
    assert sorted(ids(claim(backend, QUEUE, 10))) == sorted(pushed)


@pytest.mark.parametrize(
    ("stored", "first", "turn"),
    [
        (5, 9, 5),
        (5, None, 5),
        (9, 5, 5),
        (0, 3 * MAX_STEP, 2 * MAX_STEP),
        (-1, 7, 0),
        (2**62, 7, 0),
        ("x", None, 0),
        (5, -3, 5),
    ],
)
def test_the_current_turn_is_never_above_one_that_waits(stored: Any, first: Any, turn: int) -> None:
    assert current_turn(stored, first) == turn


def test_tasks_without_a_key_have_one_turn_in_each() -> None:
    keyed = [SimpleNamespace(at=turn * TURN, name=f"k{turn}") for turn in (1, 1, 2, 2)]
    plain = [SimpleNamespace(at=0, name=f"p{number}") for number in range(5)]
    chosen, turn, plain_turn = merge(keyed, plain, 7, 0, 0)
    assert [row.name for row in chosen] == ["p0", "k1", "k1", "p1", "k2", "k2", "p2"]
    assert (turn, plain_turn) == (2 * TURN, 2 * TURN)

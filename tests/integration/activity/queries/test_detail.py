"""The tree of a task's children: bounded in size and depth, whatever the record holds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.activity.queries import detail
from agentexec.activity.queries.detail import MAX_DEPTH
from agentexec.activity.schemas import ActivityChildSchema, ActivityDetailSchema
from agentexec.cli import show
from agentexec.runtime import RUNTIME


@pytest.fixture
def engine(tables_url: str) -> Iterator[Engine]:
    ax.configure(database_url=tables_url)
    yield RUNTIME.engine
    RUNTIME.close()


def chain(engine: Engine, length: int) -> list[UUID]:
    """Record tasks of which each is the parent of the next one."""
    ids = [ax.enqueue_sync("work", {"n": number}).agent_id for number in range(length)]
    for parent, child in itertools.pairwise(ids):
        adopt(engine, parent, child)
    return ids


def adopt(engine: Engine, parent: UUID, child: UUID) -> None:
    with engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == child).values(parent_id=parent))


def read(engine: Engine, agent_id: UUID) -> ActivityDetailSchema:
    with Session(engine) as db:
        return ax.activity.detail(db, agent_id)


def below(task: ActivityDetailSchema | ActivityChildSchema) -> list[ActivityChildSchema]:
    return [each for child in task.children for each in (child, *below(child))]


def test_a_long_chain_of_children_is_cut_with_a_mark(engine: Engine) -> None:
    ids = chain(engine, MAX_DEPTH + 5)
    task = read(engine, ids[0])
    tree = below(task)
    assert [child.agent_id for child in tree] == ids[1 : MAX_DEPTH + 1]
    assert [child.more_below for child in tree] == [False] * (MAX_DEPTH - 1) + [True]
    assert not task.more_below
    assert json.loads(task.model_dump_json())["children"][0]["more_below"] is False
    assert f"... more below: agentexec show {ids[MAX_DEPTH]}" in show._tree(task.children)[-1]


def test_a_chain_that_fits_has_no_mark(engine: Engine) -> None:
    task = read(engine, chain(engine, MAX_DEPTH + 1)[0])
    assert len(below(task)) == MAX_DEPTH
    assert not any(child.more_below for child in below(task))


def test_too_many_children_are_cut_with_a_mark(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detail, "MAX_TREE", 3)
    parent, *children = chain(engine, 1) + [ax.enqueue_sync("work", {}).agent_id for _ in range(5)]
    for child in children:
        adopt(engine, parent, child)
    task = read(engine, parent)
    assert (len(task.children), task.more_below) == (3, True)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_circle_of_parents_ends_every_walk(engine: Engine, length: int) -> None:
    ids = chain(engine, length)
    adopt(engine, ids[-1], ids[0])
    task = read(engine, ids[0])
    assert [child.agent_id for child in below(task)] == ids[1:]
    assert ax.cancel_sync(ids[0])
    assert {str(read(engine, each).status) for each in ids} == {"canceled"}

"""The filter of the monitor."""

from __future__ import annotations

import pytest

import agentexec as ax
from agentexec.cli.screen.data import Query


@pytest.mark.parametrize(
    "query",
    [
        Query(metadata={"tenant": "a b", "who": 'O\'Brien "x"'}, text="some words"),
        Query((ax.Status.ERROR, ax.Status.RUNNING), "research", "it's late"),
        Query(metadata={"path": "C:\\new"}),
    ],
)
def test_a_filter_survives_printing_and_parsing(query: Query) -> None:
    assert Query.parse(str(query)) == query


def test_a_filter_takes_the_former_word_for_a_tasks_name() -> None:
    assert Query.parse("task:research") == Query.parse("type:research") == Query(task_name="research")


def test_a_filter_with_an_unknown_status_is_refused() -> None:
    with pytest.raises(ax.UsageError, match="There is no status late"):
        Query.parse("status:late")

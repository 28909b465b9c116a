"""The rule for names of queues, in every place that takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from agentexec.arguments.queue_names import check_queue_name
from agentexec.client.new_task import new_task
from agentexec.config import CONF, load_settings


@pytest.mark.parametrize(
    "name", ["a", "agentexec_tasks", "tenant:eu", "höhe", "a.b-c/d", "a:", "1:a", "x" * 100]
)
def test_a_name_of_visible_characters_is_taken(name: str) -> None:
    assert check_queue_name("queue=", name) == name


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("a,b", "must not have commas or double quotes: 'a,b'. Give the queue another name."),
        ('"a"', "must not have commas or double quotes"),
        ("a b", "must not have blanks or control characters"),
        ("a\u00a0b", "must not have blanks or control characters"),
        ("a\n", "must not have blanks or control characters"),
        ("a\u200bb", "must not have blanks or control characters"),
        ("shard:7", "must not end with a colon and a number, which would be a weight"),
        ("", "must not be empty"),
        ("x" * 101, "at most 100 characters"),
        (7, "must be a text"),
    ],
)
def test_a_name_that_no_worker_could_be_told_is_refused(name: Any, complaint: str) -> None:
    with pytest.raises(ax.UsageError) as refused:
        check_queue_name("queue=", name)
    assert complaint in str(refused.value)


def _handler(agent_id: UUID, context: dict[str, str]) -> None: ...


WAYS: dict[str, Callable[[str], object]] = {
    "Pool(queue_name=)": lambda name: ax.Pool(database_url="sqlite:///x.db", queue_name=name),
    "Pool(queues=)": lambda name: ax.Pool(database_url="sqlite:///x.db", queues=[name]),
    "task(queue=)": lambda name: ax.Pool(database_url="sqlite:///x.db").task("t", queue=name)(_handler),
    "enqueue": lambda name: new_task("t", {}, queue_name=name),
    "pause": lambda name: ax.queues.pause_sync(name),
    "settings": lambda name: setattr(CONF, "queue_name", name),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["", "my queue", "a,b", "shard:7"])
def test_every_way_in_has_the_same_rule(way: str, name: str) -> None:
    with pytest.raises(ax.AgentexecError, match=r"queue|AGENTEXEC_QUEUE_NAME"):
        WAYS[way](name)


def test_a_name_in_the_environment_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTEXEC_QUEUE_NAME", "my queue")
    with pytest.raises(
        ax.SettingsError, match=r"QUEUE_NAME cannot be used: .*drain .* `agentexec worker -Q`"
    ):
        load_settings()

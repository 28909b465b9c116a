"""Pools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import agentexec as ax
from agentexec.client.new_task import new_task
from agentexec.runtime import RUNTIME


@pytest.fixture(autouse=True)
def database(sqlite_url: str) -> Iterator[None]:
    ax.configure(database_url=sqlite_url)
    yield
    RUNTIME.close()


@pytest.mark.parametrize("name", ["", "q" * 101, "nul\x00", 7])
def test_a_queue_that_no_task_could_have_is_refused(name: Any) -> None:
    with pytest.raises(ax.UsageError, match="queue_name="):
        ax.Pool(queue_name=name)


def test_a_task_goes_to_the_queue_of_its_pool_unless_another_is_given() -> None:
    pools = [ax.Pool(queue_name="fast"), ax.Pool()]
    for pool, name in zip(pools, ("quick", "slow"), strict=True):
        pool.add_task(name, lambda agent_id, context: None)
    assert new_task("quick", None).queue == "fast"
    assert new_task("quick", None, queue_name="slow").queue == "slow"
    assert {new_task(name, None).queue for name in ("slow", "unknown")} == {ax.CONF.queue_name}

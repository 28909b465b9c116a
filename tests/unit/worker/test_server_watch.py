"""The maintenance process knows when its servers last answered."""

from __future__ import annotations

import agentexec as ax
from agentexec.config import Settings
from agentexec.errors import UnavailableError
from agentexec.runtime import RUNTIME
from agentexec.worker.server_watch import ServerWatch


def test_a_server_that_is_away_grows_older_than_one_that_answers(sqlite_tables: str) -> None:
    ax.configure(database_url=sqlite_tables)
    watch = ServerWatch(RUNTIME, Settings())
    assert watch.state() == {}
    watch.look()
    assert set(watch.state()) == {"database", "queue"}
    before = dict(watch._answered_at)

    def away() -> None:
        raise UnavailableError("Redis is away.")

    watch._ask_queue = away  # type: ignore[method-assign]
    watch.look()
    assert watch._answered_at["database"] > before["database"]
    assert watch._answered_at["queue"] == before["queue"]

"""The time of the record is that of the database's server, whatever the host's clock says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.db import clock
from agentexec.db.clock import RecordClock, host_time, utc_now
from agentexec.db.transactions import reading
from agentexec.runtime import RUNTIME


@pytest.fixture
def hour_behind(tables_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    def behind() -> datetime:
        return host_time() - timedelta(hours=1)

    monkeypatch.setattr(clock, "CLOCK", RecordClock(behind))
    ax.configure(database_url=tables_url)
    yield tables_url
    RUNTIME.close()


def test_a_process_whose_clock_is_wrong_writes_the_time_of_the_server(hour_behind: str) -> None:
    if hour_behind.startswith("sqlite"):
        with reading(RUNTIME.engine):
            assert host_time() - utc_now() > timedelta(minutes=59), "a file has no clock"
        return
    with reading(RUNTIME.engine):
        assert abs(host_time() - utc_now()) < timedelta(seconds=30)
    task = ax.enqueue_sync("work", None, delay=60)
    with RUNTIME.engine.connect() as connection:
        row = connection.execute(
            select(Activity.created_at, Activity.run_at).where(Activity.agent_id == task.agent_id)
        ).one()
    assert abs(host_time() - row.created_at) < timedelta(seconds=30)
    assert timedelta(seconds=30) < row.run_at - host_time() <= timedelta(seconds=61)

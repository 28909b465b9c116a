"""Ids of events."""

from __future__ import annotations

from uuid import uuid4

import pytest

import agentexec as ax


@pytest.mark.parametrize("after", ["nonsense", "1", "1.", "-1.2", "1.2.3", "1.2; DROP TABLE"])
def test_an_invalid_event_id_is_refused(after: str) -> None:
    with pytest.raises(ax.UsageError, match="not the id of an event"):
        ax.activity.stream(uuid4(), after=after)

"""Many clients at one web process; some of them never read."""

from __future__ import annotations

import asyncio

import pytest

from bench.streams import Load, measure
from bench.targets import opened


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["events", "ag-ui"])
def test_clients_that_never_read_harm_no_other(path: str) -> None:
    load = Load(clients=100, tasks=5, stalled=10, seconds=3.0, rate=10.0, lines=1.0, path=path)
    with opened("embedded") as target:
        outcome = asyncio.run(measure(target, load))
    assert outcome.ended == load.clients
    assert outcome.dropped == 0
    assert len(outcome.delays) == load.clients * load.rate * load.seconds
    before, _, after = outcome.memory
    assert after - before < 100e6

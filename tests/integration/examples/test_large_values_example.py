"""The example of large values, with a scripted model."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import agentexec as ax
from examples.large_values import worker
from tests.stores import stored_values

IMAGE = f"data:image/png;base64,{base64.b64encode(bytes(90_000)).decode()}"


def test_the_example_of_large_values_keeps_images_out_of_the_database(
    sqlite_tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "payloads"
    store.mkdir()
    monkeypatch.setattr(ax.CONF, "payload_store", store.as_uri())
    with ax.testing.harness(worker.pool, engine=create_engine(sqlite_tables)) as harness:
        harness.model.call_tool("enlarge", {"part": "the signature"}).say("It is signed.")
        task = harness.run("read_scan", {"question": "Is it signed?", "image": IMAGE})
        assert task.result.text == "It is signed."
        assert task.result.image == IMAGE
        assert str(harness.model.calls[-1].input).count(IMAGE) == 2, (
            "the scan, and what the tool has returned"
        )
        values = stored_values(ax.get_engine())
    assert all(len(value) < 10_000 for column in values.values() for value in column)
    kinds = Counter(path.name.partition("-")[0] for path in store.rglob("*-*") if path.is_file())
    assert kinds["context"] == kinds["result"] == 1
    assert kinds["journal"] >= 1

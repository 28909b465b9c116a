"""Long tests start first in every worker process, and no test is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import longest_first as order
from tests.longest_first import SECONDS, longest_first

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "SECONDS", {"a": 30, "b": 20, "c": 10})


def ordered(tests: str, workers: int) -> str:
    return "".join(longest_first(tests, workers, lambda test: test))


def test_each_process_begins_with_its_share_of_the_long_tests() -> None:
    assert ordered("123a456b789c", 2) == "ac1234" + "b56789"


def test_quick_tests_keep_their_order() -> None:
    assert ordered("1234567", 3) == "1234567"


@pytest.mark.parametrize("tests", ["", "a", "cba", "aaaaaaa", "abc1", "1a"])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_no_test_is_lost(tests: str, workers: int) -> None:
    assert sorted(ordered(tests, workers)) == sorted(tests)


def test_every_file_that_is_named_exists() -> None:
    assert {file for file in SECONDS if not (ROOT / file).is_file()} == set()

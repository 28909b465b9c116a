"""An error starts another attempt if the handler's options say so, after the pause that they say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from agentexec.errors import UsageError
from agentexec.registry import Registry
from agentexec.worker.retrying import next_delay


async def handler(agent_id: UUID, context: dict[str, Any]) -> None: ...


def delay(error: BaseException, failures: int = 1, **options: Any) -> float | None:
    return next_delay(Registry().add("work", handler, **{"retries": 5, **options}), failures, error)


@pytest.mark.parametrize(
    ("retry_on", "error", "is_retried"),
    [
        (None, ValueError(), True),
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((OSError, ValueError), ValueError(), True),
        ([OSError], ValueError(), False),
        (lambda error: "busy" in str(error), ValueError("busy"), True),
        (lambda error: "busy" in str(error), ValueError("wrong"), False),
        (OSError, ExceptionGroup("all", [ConnectionError(), TimeoutError()]), True),
        (OSError, ExceptionGroup("one", [ConnectionError(), ValueError()]), False),
        (OSError, BaseExceptionGroup("deep", [ExceptionGroup("", [OSError()])]), True),
        (KeyboardInterrupt, KeyboardInterrupt(), True),
    ],
)
def test_an_error_is_retried_if_it_is_named(retry_on: Any, error: BaseException, is_retried: bool) -> None:
    assert (delay(error, retry_on=retry_on) is not None) is is_retried


@pytest.mark.parametrize(
    ("backoff", "failures", "seconds"),
    [
        (10, 1, 10.0),
        (10, 5, 10.0),
        (0, 1, 0.0),
        (timedelta(minutes=1), 2, 60.0),
        (lambda failures: failures * 7, 3, 21.0),
        (lambda failures: timedelta(seconds=failures), 2, 2.0),
    ],
)
def test_the_pause_is_the_one_that_is_named(backoff: Any, failures: int, seconds: float) -> None:
    assert delay(ValueError(), failures, backoff=backoff) == seconds


def test_the_default_pause_doubles() -> None:
    for failures in range(1, 6):
        found = delay(ValueError(), failures)
        assert found is not None
        assert 0.8 * 2**failures <= found <= 2**failures


def test_retries_end_whatever_the_other_options_say() -> None:
    assert delay(ValueError(), 6, retry_on=ValueError, backoff=1) is None


async def wait(_: object) -> float:
    return 1.0


def raise_error(_: object) -> Any:
    raise RuntimeError("a mistake in the option")


@pytest.mark.parametrize("backoff", [raise_error, lambda _: "soon", lambda _: -1, lambda _: float("nan")])
def test_a_mistake_in_backoff_is_logged_and_the_task_is_retried(
    backoff: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = delay(ValueError(), 1, backoff=backoff)
    assert found is not None
    assert 1.6 <= found <= 2
    assert "backoff= of task work failed" in caplog.text


def test_a_mistake_in_retry_on_is_logged_and_the_task_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    assert delay(ValueError(), retry_on=raise_error) is not None
    assert "retry_on= of task work failed (RuntimeError: a mistake in the option)" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"retry_on": "ValueError"},
        {"retry_on": ()},
        {"retry_on": int},
        {"retry_on": (ValueError, "x")},
        {"backoff": -1},
        {"backoff": "soon"},
        {"backoff": float("inf")},
        {"backoff": True},
        {"backoff": lambda: 3},
        {"backoff": wait},
        {"retry_on": wait},
        {"retry_on": lambda error, again: True},
    ],
)
def test_options_that_cannot_work_are_refused_at_registration(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"Task work: {next(iter(options))} must be"):
        Registry().add("work", handler, **options)

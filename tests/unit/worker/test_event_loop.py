"""The event loop of a worker process continues, whatever the code of handlers does to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop

from agentexec.errors import UsageError
from agentexec.task import CURRENT_LEASE
from agentexec.worker.event_loop import AttemptTask, MainTask, protect_loop, run_to_end
from tests.unit.worker.parts import new_lease

LOOPS = pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewEventLoop = Callable[[], asyncio.AbstractEventLoop]


def run(new_event_loop: NewEventLoop, main: Coroutine[Any, Any, str]) -> str:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        loop = runner.get_loop()
        return run_to_end(loop, MainTask(main, loop=loop))


def leave(error: type[BaseException]) -> None:
    raise error


@LOOPS
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_task_or_callback_does_not_end_the_loop(
    new_event_loop: NewEventLoop, error: type[BaseException]
) -> None:
    async def branch() -> None:
        raise error

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.call_soon(leave, error)
        loop.call_later(0.001, leave, error)
        results = await asyncio.gather(branch(), branch(), return_exceptions=True)
        await asyncio.sleep(0.01)
        return " ".join(type(result).__name__ for result in results)

    assert run(new_event_loop, main()) == f"{error.__name__} {error.__name__}"


@LOOPS
def test_a_stopped_loop_continues(new_event_loop: NewEventLoop) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.stop()
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: loop.call_soon_threadsafe(loop.stop))
        await asyncio.sleep(0.01)
        return "done"

    assert run(new_event_loop, main()) == "done"


@LOOPS
def test_a_handler_cannot_stop_the_loop_nor_cancel_the_process(new_event_loop: NewEventLoop) -> None:
    async def handler(main: asyncio.Task[Any] | None) -> None:
        CURRENT_LEASE.set(new_lease())
        assert main is not None
        assert not main.cancel()
        with pytest.raises(UsageError, match="cannot stop the event loop"):
            asyncio.get_running_loop().stop()
        own = ThreadPoolExecutor(1)
        with pytest.raises(
            UsageError, match="cannot replace the threads of the event loop, which other tasks"
        ):
            asyncio.get_running_loop().set_default_executor(own)
        with pytest.raises(UsageError, match="cannot shut the threads"):
            await asyncio.get_running_loop().shutdown_default_executor()
        with pytest.raises(UsageError, match="cannot set the task factory"):
            asyncio.get_running_loop().set_task_factory(None)
        assert await asyncio.to_thread(int, "3") == 3

    async def main() -> str:
        protect_loop(asyncio.get_running_loop())
        await asyncio.create_task(handler(asyncio.current_task()))
        await asyncio.sleep(0)
        return "done"

    assert run(new_event_loop, main()) == "done"


@LOOPS
def test_the_error_of_the_main_task_is_raised(new_event_loop: NewEventLoop) -> None:
    async def main() -> str:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(new_event_loop, main())


def test_an_error_that_breaks_the_loop_is_raised_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("bad file descriptor")

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = MainTask(asyncio.sleep(60, "done"), loop=loop)
        with monkeypatch.context() as broken:
            broken.setattr(loop, "run_forever", fail)
            with pytest.raises(OSError, match="bad file descriptor"):
                run_to_end(loop, task)
        assert not task.done()


def test_code_that_knows_an_attempt_may_cancel_it_from_another_one() -> None:
    async def main() -> str:
        attempt = AttemptTask(
            asyncio.sleep(60, "done"), lease=new_lease(), loop=asyncio.get_running_loop(), name="attempt"
        )
        await asyncio.sleep(0)
        CURRENT_LEASE.set(new_lease())
        assert not attempt.cancel()
        assert attempt.cancel("by a cancel scope")
        await asyncio.wait([attempt])
        return "canceled" if attempt.cancelled() else "not canceled"

    assert asyncio.run(main()) == "canceled"


@LOOPS
@pytest.mark.parametrize(
    ("message", "is_canceled"), [(None, False), ("bye", False), ("Cancelled via cancel scope 1f", True)]
)
def test_another_handler_cancels_an_attempt_only_by_a_shared_scope(
    new_event_loop: NewEventLoop, message: str | None, is_canceled: bool
) -> None:
    async def attempt() -> str:
        await asyncio.sleep(0.01)
        return "done"

    async def main() -> str:
        loop = asyncio.get_running_loop()
        task = AttemptTask(attempt(), lease=new_lease(), loop=loop, name="attempt")
        await asyncio.sleep(0)

        async def neighbor() -> bool:
            CURRENT_LEASE.set(new_lease())
            return task.cancel() if message is None else task.cancel(message)

        assert await asyncio.create_task(neighbor()) is is_canceled
        [result] = await asyncio.gather(task, return_exceptions=True)
        return type(result).__name__

    assert run(new_event_loop, main()) == ("CancelledError" if is_canceled else "str")

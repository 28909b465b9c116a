"""Errors that a future or coroutine cannot pass on reach the caller all the same."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentexec.journal.user_errors import contain_generator_exit, guard_threads


def stop(*_: Any) -> None:
    next(iter([]))


def test_a_function_in_a_thread_may_raise_stop_iteration() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        guard_threads(loop)
        guard_threads(loop)
        with ThreadPoolExecutor(1) as own:
            for call in (asyncio.to_thread(stop), loop.run_in_executor(own, stop, 1)):
                with pytest.raises(RuntimeError, match="raised StopIteration") as raised:
                    await asyncio.wait_for(call, 10)
                assert isinstance(raised.value.__cause__, StopIteration)
        assert await asyncio.to_thread(int, "7") == 7

    asyncio.run(check())


def test_a_generator_exit_of_user_code_is_an_ordinary_error() -> None:
    async def leave() -> None:
        raise GeneratorExit

    async def check() -> None:
        with pytest.raises(RuntimeError, match="raised GeneratorExit"):
            await contain_generator_exit(leave())

    asyncio.run(check())


def test_a_coroutine_that_is_closed_stays_closed() -> None:
    coroutine = contain_generator_exit(asyncio.sleep(60))

    async def check() -> None:
        task = asyncio.ensure_future(asyncio.sleep(0))
        coroutine.send(None)
        await task

    asyncio.run(check())
    coroutine.close()

"""Input guardrails that run beside a run's first turn: a replay waits for them, because recorded answers come at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from agents import run as sdk_run
from agents.run_internal import run_loop

from agentexec.journal.scopes import SCOPE


class InputGuardrails:
    """The input guardrails of one run that are being decided."""

    def __init__(self) -> None:
        self._deciding: set[asyncio.Future[None]] = set()

    async def decide(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """Let the SDK run guardrails; whoever waits goes on when they have let the run pass."""
        decision: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._deciding.add(decision)
        try:
            result = await make()
        except BaseException as error:
            if isinstance(error, Exception):
                decision.set_exception(error)
                decision.exception()  # It need not be waited for.
            else:
                decision.cancel()
            raise
        else:
            decision.set_result(None)
            return result
        finally:
            self._deciding.discard(decision)

    async def wait(self) -> None:
        """Wait until all guardrails that have started are decided; raises the error of one that fails.

        A model's answer takes long enough for a guardrail to stop what follows from it. A recorded answer does not, and
        its tools would run before the guardrail has decided.
        """
        # The SDK starts them right after the turn, or before it.
        await asyncio.sleep(0)
        for decision in [*self._deciding]:
            await asyncio.shield(decision)


async def run_guardrails(make: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Run input guardrails as the SDK does, known to the durable run that they belong to."""
    scope = SCOPE.get()
    guardrails = getattr(scope.run, "input_guardrails", None) if scope is not None else None
    if guardrails is None:
        return await make(*args, **kwargs)
    return await guardrails.decide(lambda: make(*args, **kwargs))


def patch_guardrails() -> None:
    """Make durable runs know of the guardrails that the SDK runs for them. Repeated calls have no effect."""
    for module, name in ((sdk_run, "run_input_guardrails"), (run_loop, "run_input_guardrails_with_queue")):
        make = getattr(module, name)
        if getattr(make, "func", None) is not run_guardrails:
            setattr(module, name, functools.partial(run_guardrails, make))

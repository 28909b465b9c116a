"""State backend whose process is killed at a chosen instant: a real SIGKILL of a real process, at a known moment.

It is the configured backend (Redis where there is a URL, else SQL), except that a process which is about to call a
method, or has just called it, dies if the folder $FAULTS holds a file of that name (`before-push`, `after-claim`).
The file goes with it, so that each strikes once.
"""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Any

from agentexec.config import REDIS_BACKEND, SQL_BACKEND


def create(settings: Any, engine: Any) -> FailingBackend:
    module = REDIS_BACKEND if settings.redis_url else SQL_BACKEND
    return FailingBackend(importlib.import_module(module).create(settings, engine))


class FailingBackend:
    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            strike(f"before-{name}")
            outcome = value(*args, **kwargs)
            if name != "claim" or outcome.leases:
                strike(f"after-{name}")
            return outcome

        return call


def strike(instant: str) -> None:
    file = Path(os.environ["FAULTS"], instant)
    try:
        file.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

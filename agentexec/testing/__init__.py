"""Tools to test software that is built on agentexec; see `harness`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentexec.testing.harness import AsyncHarness as AsyncHarness
    from agentexec.testing.harness import Harness as Harness
    from agentexec.testing.harness import TaskRecord as TaskRecord
    from agentexec.testing.harness import harness as harness
    from agentexec.testing.run_replay import replay as replay
    from agentexec.testing.script import ScriptEndedError as ScriptEndedError

_MODULES = {
    "AsyncHarness": "harness",
    "Harness": "harness",
    "ScriptEndedError": "script",
    "TaskRecord": "harness",
    "harness": "harness",
    "replay": "run_replay",
}

__all__ = ["AsyncHarness", "Harness", "ScriptEndedError", "TaskRecord", "harness", "replay"]


def __getattr__(name: str) -> Any:
    # Imported on first use: the suite for state backends needs none of these.
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'agentexec.testing' has no attribute {name!r}")
    found = importlib.import_module(f"agentexec.testing.{module}")
    # All of its names: the import has made `harness` the module, which users do not mean.
    globals().update({other: getattr(found, other) for other, home in _MODULES.items() if home == module})
    return globals()[name]

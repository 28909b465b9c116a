"""Variables of the environment that are named like settings and are none."""

from __future__ import annotations

import difflib
import logging
import os

from pydantic_settings import DotEnvSettingsSource

from agentexec.arguments.variables import PREFIX, env_var_name
from agentexec.config import Settings

log = logging.getLogger("agentexec.supervisor")

NEAR = 0.8
"""Similarity, of 1, from which a setting may be the one that a misspelled variable means."""

TOOLS = ("AGENTEXEC_DEV_", "AGENTEXEC_TEST_")
"""Prefixes of the variables of agentexec's own development."""


def unknown_variables() -> list[str]:
    """Return a sentence for each variable, of the environment and `.env`, that is named like a setting and is not one."""
    known = {env_var_name(name) for name in Settings.model_fields}
    named = {*os.environ, *DotEnvSettingsSource(Settings, case_sensitive=True).env_vars}
    unknown = sorted(
        name for name in named if name.startswith(PREFIX) and not name.startswith(TOOLS) and name not in known
    )
    return [_unknown(name, difflib.get_close_matches(name, known, 1, NEAR)) for name in unknown]


def warn_of_unknown_variables() -> None:
    """Log a warning for each of them."""
    for sentence in unknown_variables():
        log.warning("%s", sentence)


def _unknown(name: str, nearest: list[str]) -> str:
    advice = f"did you mean {nearest[0]}?" if nearest else "it has no effect."
    return f"There is no setting {name}; {advice}"

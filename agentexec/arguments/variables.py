"""Variables of the environment that hold settings, for processes that do without the settings themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PREFIX = "AGENTEXEC_"

MIN_HOST_TIMEOUT, MAX_HOST_TIMEOUT = 1.0, 3600.0
"""Limits of `host_timeout` in seconds."""


def env_var_name(field: str) -> str:
    """Return the environment variable of a settings field."""
    return PREFIX + field.upper()


def variable_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return settings, given by name, as the texts that their variables would have."""
    return {
        name: str(value) if isinstance(value, str | Path) else json.dumps(value)
        for name, value in values.items()
    }

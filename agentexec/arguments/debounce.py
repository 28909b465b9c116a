"""Options of debounce: how long a task waits for further enqueues, and which are merged into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentexec.arguments.checks import check_seconds
from agentexec.arguments.key_templates import check_template
from agentexec.errors import UsageError

MAX_KEY = 200
"""Maximum characters of a key."""


class Debounce(NamedTuple):
    """Merging of the enqueues of a task, in seconds. `key` is a template; an empty one is the same for all."""

    seconds: float
    key: str = ""
    maximum: float | None = None


def checked_debounce(
    prefix: str, options: Mapping[str, Any], default: Debounce | None = None
) -> Debounce | None:
    """Return what the options `debounce`, `debounce_key` and `debounce_max` say, on top of a default; None without debounce.

    `prefix` begins the names in errors.
    """
    seconds, key, maximum = (options.get(name) for name in ("debounce", "debounce_key", "debounce_max"))
    found = default
    if seconds is not None:
        checked = check_seconds(f"{prefix}debounce=", seconds, minimum=0)
        found = Debounce(checked) if found is None else found._replace(seconds=checked)
    if found is None or not found.seconds:
        if key is not None or maximum is not None:
            raise UsageError(
                f"{prefix}debounce_key= and debounce_max= need a debounce= of more than 0 seconds."
            )
        return None
    if key is not None:
        found = found._replace(key=check_template(f"{prefix}debounce_key=", key, MAX_KEY))
    if maximum is not None:
        found = found._replace(maximum=check_seconds(f"{prefix}debounce_max=", maximum, minimum=0))
    if found.maximum is not None and found.maximum < found.seconds:
        raise UsageError(f"{prefix}debounce_max= must not be less than debounce=.")
    return found

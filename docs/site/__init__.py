"""Documentation site: parts generated from the code, and files from outside docs/."""

from __future__ import annotations

import re
from collections.abc import Callable

from docs.site import cli, errors, metrics, schema, settings

PARTS: dict[str, Callable[[], str]] = {
    "cli": cli.render,
    "errors": errors.render,
    "metrics": metrics.render,
    "schema": schema.render,
    "settings": settings.render,
}
MARK = re.compile(r"<!-- generated: (\w+) -->")


def expanded(text: str) -> str:
    """Return a page's text with a generated part in place of each comment like `<!-- generated: cli -->`."""
    return MARK.sub(lambda found: PARTS[found[1]](), text)

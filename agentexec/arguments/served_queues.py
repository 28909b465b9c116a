"""Queues that a worker serves, as a text: in order like "high,default", or by weight like "high:3,default:1".

A name in double quotes is taken as it is. So a worker can still drain a queue whose name breaks the rule for new ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agentexec.arguments.checks import check_integer, shown
from agentexec.arguments.queue_names import check_queue_name, check_stored_queue, find_problem
from agentexec.errors import UsageError

MAX_QUEUES = 50
"""Maximum number of queues of one worker: each is asked for tasks by itself."""

MAX_WEIGHT = 1_000

_PART = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]*?))(?::(\d+))?\s*(?:,|$)')
"""A queue of a text: a name in quotes or without, its weight, and the comma after it."""


class ServedQueue(NamedTuple):
    """Queue that a worker serves. Either all of its queues have a weight, or none."""

    name: str
    weight: int | None = None

    def __str__(self) -> str:
        name = self.name if find_problem(self.name) is None else _quoted(self.name)
        return name if self.weight is None else f"{name}:{self.weight}"


def parse_queues(text: str) -> tuple[ServedQueue, ...]:
    """Return the queues of a text.

    Raises:
        UsageError: A name breaks the rule for names of queues and is not quoted, or is there twice, or only some of the
            queues have a weight.
    """
    served, end = [], 0
    while end < len(text) or not served or text[end - 1] == ",":
        if (part := _PART.match(text, end)) is None:
            raise UsageError(f"queues: the quotes in {shown(text)} are not in pairs around a name.")
        served.append(_read_queue(part))
        if end == part.end():
            break
        end = part.end()
    if len(served) == 1 and (weight := served[0].weight) is not None:
        raise UsageError(
            f"queues: {text.strip()} is one queue with a weight, which needs others beside it: write {served[0].name}. A queue "
            f"that got this name from an earlier release is drained by it in double quotes: "
            f"{_quoted(f'{served[0].name}:{weight}')}."
        )
    return _checked(served)


def served_by(queues: str, queue_name: str) -> tuple[ServedQueue, ...]:
    """Return the queues that a worker with these two settings serves."""
    return parse_queues(queues) if queues else (ServedQueue(queue_name),)


def _read_queue(part: re.Match[str]) -> ServedQueue:
    quoted, name, weight = part.groups()
    if quoted is not None:
        name = check_stored_queue("queues: the name of a queue", quoted.replace('""', '"'))
    elif (problem := find_problem(name)) is not None:
        raise UsageError(
            f"queues: the name of a queue {problem}: {shown(name)}. A queue that got such a name from an earlier release is "
            f"drained by its name in double quotes: {_quoted(name)}."
        )
    # Of more digits Python would read none, and a weight is far below.
    return ServedQueue(name, None if weight is None else int(weight[:10]))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def format_queues(queues: str | Sequence[str] | Mapping[str, int]) -> str:
    """Return the text of queues that are given in code: as that text, as names in order, or as weights by name.

    Raises:
        UsageError: As `parse_queues` does. In a list or mapping, no name may break the rule.
    """
    if isinstance(queues, str):
        return format_served(parse_queues(queues))
    try:
        given = [*queues]
    except TypeError:
        raise UsageError(
            "queues must be a text like 'high,default', a list of names, or a mapping of names to weights."
        ) from None
    for name in given:
        check_queue_name("queues: the name of a queue", name)
    weights = queues if isinstance(queues, Mapping) and len(given) > 1 else {}
    return format_served(_checked([ServedQueue(name, weights.get(name)) for name in given]))


def format_served(served: Iterable[ServedQueue]) -> str:
    """Return the text that `parse_queues` reads."""
    return ",".join(map(str, served))


def describe_queues(served: Sequence[ServedQueue]) -> str:
    """Return queues for a log line: "queue a", or "queues a, b (in this order)"."""
    names = ", ".join(map(str, served))
    if len(served) == 1:
        return f"queue {names}"
    return f"queues {names} ({'in this order' if served[0].weight is None else 'by weight'})"


def _check_queue(queue: ServedQueue) -> None:
    check_stored_queue("queues: the name of a queue", queue.name)
    if queue.weight is not None:
        check_integer(f"queues: the weight of {queue.name}", queue.weight, maximum=MAX_WEIGHT)


def _checked(served: Sequence[ServedQueue]) -> tuple[ServedQueue, ...]:
    if not served:
        raise UsageError("queues must name at least one queue.")
    if len(served) > MAX_QUEUES:
        raise UsageError(f"queues may name at most {MAX_QUEUES} queues, not {len(served)}.")
    for queue in served:
        _check_queue(queue)
    names = [queue.name for queue in served]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"queues names {twice[0]} twice.")
    if len({queue.weight is None for queue in served}) > 1:
        bare = next(queue.name for queue in served if queue.weight is None)
        raise UsageError(f"queues gives {bare} no weight: give each queue one (high:3,default:1), or none.")
    return tuple(served)

"""Queues that a worker serves, as a text: in order like "high,default", or by weight like "high:3,default:1"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agentexec.arguments.checks import check_integer, check_text
from agentexec.errors import UsageError

MAX_QUEUE_NAME = 100
"""Maximum characters of a queue's name."""

MAX_QUEUES = 50
"""Maximum number of queues of one worker: each is asked for tasks by itself."""

MAX_WEIGHT = 1_000


class ServedQueue(NamedTuple):
    """Queue that a worker serves. Either all of its queues have a weight, or none."""

    name: str
    weight: int | None = None

    def __str__(self) -> str:
        return self.name if self.weight is None else f"{self.name}:{self.weight}"


def parse_queues(text: str) -> tuple[ServedQueue, ...]:
    """Return the queues of a text. A text without a comma is the name of one queue, whatever characters it has.

    Raises:
        UsageError: A name is empty, too long or there twice, or only some of the queues have a weight.
    """
    if "," not in text:
        return _checked([ServedQueue(text.strip())])
    return _checked([_parse_queue(part.strip()) for part in text.split(",")])


def format_queues(queues: str | Sequence[str] | Mapping[str, int]) -> str:
    """Return the text of queues that are given in code: as that text, as names in order, or as weights by name.

    Raises:
        UsageError: As `parse_queues` does, or a name has a comma, or could be read as a name with a weight.
    """
    if isinstance(queues, str):
        return format_served(parse_queues(queues))
    try:
        given = [*queues]
    except TypeError:
        raise UsageError(
            "queues must be a text like 'high,default', a list of names, or a mapping of names to weights."
        ) from None
    weights = queues if isinstance(queues, Mapping) and len(given) > 1 else {}
    served = _checked([ServedQueue(name, weights.get(name)) for name in given])
    text = format_served(served)
    if parse_queues(text) != served:
        raise UsageError(
            f"queues: names with a comma, or with a colon and a number, are ambiguous in {text!r}."
        )
    return text


def format_served(served: Iterable[ServedQueue]) -> str:
    """Return the text that `parse_queues` reads."""
    return ",".join(map(str, served))


def describe_queues(served: Sequence[ServedQueue]) -> str:
    """Return queues for a log line: "queue a", or "queues a, b (in this order)"."""
    names = ", ".join(map(str, served))
    if len(served) == 1:
        return f"queue {names}"
    return f"queues {names} ({'in this order' if served[0].weight is None else 'by weight'})"


def _parse_queue(part: str) -> ServedQueue:
    name, colon, weight = part.rpartition(":")
    if colon and weight.isdecimal():
        return ServedQueue(name, int(weight))
    return ServedQueue(part)


def _check_queue(queue: ServedQueue) -> None:
    check_text("queues: the name of a queue", queue.name, MAX_QUEUE_NAME)
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

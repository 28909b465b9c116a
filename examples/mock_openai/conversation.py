"""Choice of a script's next step, from the conversation in the request.

No state is kept between calls: the number of model turns since the last user message is the number of the step. So any
number of runs can use one server at once, and a repeated call gets the same answer. In return, a client must send the
whole conversation, as the Agents SDK does unless it uses `previous_response_id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Self

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """Tool call by the model."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """Answer of the model: text, tool calls, or both. `{prompt}` stands for the last message of the user."""

    text: str | None = None
    calls: tuple[Call, ...] = ()
    delay: float = 0.0

    def after(self, seconds: float) -> Step:
        """Return the same step, delayed by this time in addition to the latency of the server."""
        return replace(self, delay=seconds)


@dataclass(frozen=True)
class Script:
    """Steps of one run, for the conversations that contain the text `when`."""

    steps: tuple[Step, ...]
    when: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        steps = (
            Step(step["text"], tuple(Call(**call) for call in step["calls"]), step["delay"])
            for step in data["steps"]
        )
        return cls(tuple(steps), data["when"])


def call(name: str, /, **arguments: Any) -> Step:
    """Return a step in which the model calls a tool."""
    return Step(calls=(Call(name, arguments),))


def together(*steps: Step) -> Step:
    """Return a step in which the model makes the calls of several steps in one answer."""
    return Step(calls=tuple(call for step in steps for call in step.calls))


def say(text: str) -> Step:
    """Return a step in which the model answers with text, which ends the run. For a structured output, give its JSON."""
    return Step(text=text)


def next_step(scripts: Iterable[Script], request: Mapping[str, Any]) -> Step | None:
    """Return the step for a request, or None if no script matches."""
    items = _items(request)
    everything = " ".join([str(request.get("instructions") or ""), *map(_text, items)])
    matching = [script for script in scripts if script.when in everything]
    if not matching:
        return None
    script = next((script for script in matching if script.when), matching[0])
    start = max((n for n, item in enumerate(items, start=1) if item.get("role") == "user"), default=0)
    step = _choose(script.steps, _turns(items[start:]), _offered_tools(request))
    return _fill_in(step, prompt=_text(items[start - 1]) if start else "")


def _choose(steps: Sequence[Step], turn: int, offered: set[str]) -> Step:
    # A model calls only tools that are offered: a run without tools goes straight to the text.
    for step in steps[turn:]:
        if all(call.name in offered for call in step.calls):
            return step
    return next((step for step in reversed(steps) if not step.calls), say("Done."))


def _fill_in(step: Step, prompt: str) -> Step:
    def fill(value: Any) -> Any:
        return value.replace("{prompt}", prompt) if isinstance(value, str) else value

    calls = (
        Call(call.name, {key: fill(value) for key, value in call.arguments.items()}) for call in step.calls
    )
    return replace(step, text=fill(step.text), calls=tuple(calls))


def _items(request: Mapping[str, Any]) -> list[Item]:
    """Return the conversation: `messages` of Chat Completions, `input` of the Responses API."""
    items = request.get("messages") or request.get("input") or []
    return [{"role": "user", "content": items}] if isinstance(items, str) else items


def _turns(items: Sequence[Item]) -> int:
    """Return how often the model has answered: with a message in Chat Completions, with consecutive items in Responses."""
    answers = [_is_answer(item) for item in items]
    if any(item.get("role") == "tool" for item in items):
        return sum(answers)
    return sum(current and not previous for previous, current in pairwise([False, *answers]))


def _is_answer(item: Item) -> bool:
    return item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning")


def _offered_tools(request: Mapping[str, Any]) -> set[str]:
    tools = request.get("tools") or []
    return {tool.get("name") or tool.get("function", {}).get("name") for tool in tools}


def _text(item: Item) -> str:
    content = item.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text") or "" for part in content)

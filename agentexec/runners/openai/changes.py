"""Changes of a run that was forked or restarted: other instructions, another model, messages that its first run did not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents import Model

from agentexec.journal.forks import FORK_PATH, Change, fork_of
from agentexec.journal.recorder import Recorder
from agentexec.journal.restarts import RESTART_PATH

INSTRUCTIONS, INPUT = 0, 1
"""Positions of the arguments of a model call."""


def changes_of(recorder: Recorder, path: str) -> RunChanges | None:
    """Return the changes of the run at a path; None if nothing was changed."""
    sources = [fork_of(recorder.facts(place)) for place in (FORK_PATH, RESTART_PATH)]
    changes = [
        change for source in sources if source is not None for change in source.changes if change.run == path
    ]
    return RunChanges(changes) if changes else None


class RunChanges:
    """Changes of one run. They are made right before a model is called, so the recorded inputs stay what the SDK gives.

    Instructions and the model are changed for the agent whose turn it was at the fork, from that turn on. A message stays
    where the fork put it.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes
        self._agents: dict[int, str] = {}
        """The agent that took each turn of a fork."""
        self._lengths: dict[int, int] = {}
        """Number of items that the model's input had in each turn of a fork."""
        self._models: dict[str, Model] = {}

    def model(self, turn: int, agent: str, run_config: Any) -> Model | None:
        """Return the model that an agent has in a turn instead of its own; None if its own stays."""
        name = self.model_name(turn, agent)
        if name is None:
            return None
        if name not in self._models:
            self._models[name] = run_config.model_provider.get_model(name)
        return self._models[name]

    def model_name(self, turn: int, agent: str) -> str | None:
        """Return the name of that model."""
        self._agents.setdefault(turn, agent)
        return next((change.model for change in self._of_agent(turn, agent) if change.model), None)

    def note_input(self, turn: int, given: Any) -> None:
        """Note what a model is about to read in a turn, replayed or not."""
        self._lengths.setdefault(turn, 1 if isinstance(given, str) else len(given))

    def apply(
        self, turn: int, agent: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a model call with the changes."""
        instructions = next(
            (
                change.instructions
                for change in self._of_agent(turn, agent)
                if change.instructions is not None
            ),
            None,
        )
        if instructions is not None:
            args, kwargs = _with_argument(args, kwargs, INSTRUCTIONS, "system_instructions", instructions)
        given = kwargs["input"] if "input" in kwargs else args[INPUT]
        # A provider that keeps the conversation itself gets each message once.
        is_kept = bool(kwargs.get("previous_response_id") or kwargs.get("conversation_id"))
        changed = self._with_messages(given, turn, only_new=is_kept)
        return (
            _with_argument(args, kwargs, INPUT, "input", changed) if changed is not given else (args, kwargs)
        )

    def _of_agent(self, turn: int, agent: str) -> list[Change]:
        """Return the changes that an agent has in a turn, the latest first."""
        return [
            change
            for change in reversed(self._changes)
            if change.turn <= turn and self._agents.get(change.turn, agent) == agent
        ]

    def _with_messages(self, given: Any, turn: int, *, only_new: bool) -> Any:
        messages = [
            change
            for change in self._changes
            if change.input is not None and (change.turn == turn if only_new else change.turn <= turn)
        ]
        if not messages:
            return given
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
        # From the last one on, so that the places of the others stay right.
        for change in reversed(messages):
            place = len(items) if only_new else self._lengths.get(change.turn, len(items))
            items.insert(place, {"role": "user", "content": change.input})
        return items


def _with_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if name in kwargs or len(args) <= position:
        return args, {**kwargs, name: value}
    return (*args[:position], value, *args[position + 1 :]), kwargs

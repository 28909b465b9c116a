"""Everything that identifies a piece of work is the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CHILD = r"""
import dataclasses, enum, json
from collections import deque
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field, RootModel

from agentexec.client.new_task import new_task
from agentexec.journal.canonical import canonical_json, digest
from agentexec.journal.children import candidate_ids
from agentexec.journal.current_call import Call
from agentexec.journal.recorder import Recorder, Scope
from agentexec.journal.steps import StepCall
from agentexec.runners.openai.run import DurableRun
from agentexec.task import CURRENT_LEASE, Lease
from agents import Agent

WORDS = frozenset(f"word {n}" for n in range(40))


class Color(enum.Enum):
    RED = "red"


class Tags(RootModel[frozenset[str]]):
    pass


class Inner(BaseModel):
    names: set[str] = Field(alias="allNames")
    pairs: dict[str, frozenset[tuple[str, float]]]
    tags: Tags


class Outer(Inner):
    inner: list[Inner] = []
    anything: Any = None


@dataclasses.dataclass
class Point:
    at: set[str]
    color: Color = Color.RED


def inner(cls=Inner, **more):
    return cls(allNames=WORDS, pairs={"a": {(word, 0.1) for word in WORDS}}, tags=Tags(WORDS), **more)


VALUES: list[Any] = [
    WORDS,
    {frozenset([word, "x", "y"]) for word in WORDS},
    inner(Outer, inner=[inner(), inner()], anything={"deep": {"er": WORDS}}),
    [Point(set(WORDS)), {"k": (WORDS, b"\xff", timedelta(seconds=1.5), 0.1 + 0.2)}],
    deque([WORDS]),
    {WORDS: 1, 2: WORDS, "x": Color.RED},
    {word: {word} for word in WORDS},
    Outer(allNames=WORDS, pairs={}, tags=Tags(WORDS), anything={WORDS: WORDS}),
    object(),
    lambda: WORDS,
]
lease = Lease(UUID(int=7), 1)
CURRENT_LEASE.set(lease)
recorder = Recorder(lease)
scope = Scope(recorder)


def child(context):
    return [str(agent_id) for agent_id in candidate_ids(scope, new_task("child", context)).ids]


def run(value):
    made = DurableRun(scope, Agent("Agent"), [{"role": "user", "content": value}], {})
    return [made.path, made.input_hash, Call(recorder, made.path, "fail").key]


print(json.dumps({
    "texts": [canonical_json(value) for value in VALUES],
    "digests": [digest(value) for value in VALUES],
    "steps": [[StepCall("s", print, (value,)).arguments, StepCall("s", print, (value,)).display_arguments] for value in VALUES],
    "children": [child(inner()), child({word: 1 for word in WORDS}), child(Tags(WORDS))],
    "runs": [run(value) for value in VALUES],
    "models": [digest([{"content": value}]) for value in VALUES],
}))
"""


@pytest.mark.thorough
def test_every_hash_is_the_same_in_processes_with_different_hash_seeds() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (json.loads(output) for output, _ in outputs)
    assert first == second
    assert len(set(first["digests"])) == len(first["digests"])

"""Two senders of one conversation, they and its workers killed at random: each message once, one turn at a time."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentexec as ax
from tests.deployment import REPOSITORY, Deploy, Deployment, on_one_target
from tests.faults.chat_module import ID
from tests.faults.test_crash_matrix import WHOLE

MODULE = Path(__file__).parent / "chat_module.py"
MESSAGES = 8 if WHOLE else 4
"""Messages of each sender."""

KILLS = 10 if WHOLE else 4
"""Kills of workers."""

ALL_RULES = ["queue", "steer", "interrupt"]


@pytest.mark.thorough
@pytest.mark.timeout(240)
@on_one_target("embedded", "valkey+postgres", alternates=False)
@pytest.mark.parametrize("rules", [ALL_RULES, ["queue"]] if WHOLE else [ALL_RULES])
def test_a_conversation_of_two_senders_is_whole_whoever_is_killed(deploy: Deploy, rules: list[str]) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=4, max_crashes=100)
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    deployment.spawn(command, PYTHONPATH=str(REPOSITORY))
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chat = ax.conversation(ID, task="answer")
    chat.begin_sync()
    kills = send_and_kill(deployment, chat, rules, random.Random(seed))
    assert kills >= KILLS / 3
    check(deployment, chat, rules)


def send_and_kill(
    deployment: Deployment, chat: ax.Conversation, rules: list[str], chance: random.Random
) -> int:
    """Send all messages while senders and workers are killed, until all have ended; return the number of killed workers."""
    senders = {name: start_sender(deployment, name, rules) for name in "AB"}
    kills, seen = 0, 0

    def go_on() -> bool:
        nonlocal kills, seen
        for name, sender in senders.items():
            if sender.poll() is None and chance.random() < 0.01:
                sender.kill()
            if sender.poll() not in (None, 0):
                senders[name] = start_sender(deployment, name, rules)
        lines = deployment.ledger_file.read_text().splitlines()
        if kills < KILLS and len(lines) > seen + chance.randint(1, 4):
            seen = len(lines)
            with suppress(psutil.NoSuchProcess):
                psutil.Process(int(lines[-1].split()[2])).kill()
                kills += 1
        return all(sender.poll() == 0 for sender in senders.values()) and have_ended(deployment, chat)

    deployment.wait_for(go_on, timeout=90)
    return kills


def have_ended(deployment: Deployment, chat: ax.Conversation) -> bool:
    """Return True once all messages have had their turn."""
    found = chat.messages_sync()
    return len(found) == 2 * MESSAGES and all(
        message.state in ("taken", "joined")
        and deployment.status(message.agent_id) in ("complete", "canceled")
        for message in found
    )


def start_sender(deployment: Deployment, name: str, rules: list[str]) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "tests.faults.chat_module", name, str(MESSAGES), *rules]
    return subprocess.Popen(program, env=deployment.environment, cwd=REPOSITORY)


def check(deployment: Deployment, chat: ax.Conversation, rules: list[str]) -> None:
    messages, history = chat.messages_sync(), chat.history_sync(1000)
    texts = [message.text for message in messages]
    for name in "AB":
        assert [text for text in texts if text[0] == name] == [f"{name}{n}" for n in range(MESSAGES)]
    spoken = [str(entry.item["content"]) for entry in history if entry.item.get("role") == "user"]
    assert Counter(spoken) == Counter(texts)
    turns = [turn for turn, _ in groupby(entry.agent_id for entry in history)]
    assert len(turns) == len(set(turns)), "the items of two turns are mixed"
    running = None
    for line in deployment.ledger_file.read_text().splitlines():
        event, turn, pid, _ = line.split()
        if event == "turn":
            running = (turn, pid)
        assert running == (turn, pid), "a model was called outside of the turn that ran last"
    if rules == ["queue"]:
        assert [in_short(entry.item) for entry in history] == [
            item for text in texts for item in answered(text)
        ]


def answered(text: str) -> list[str]:
    """Return the items that a message and its answer leave in a history without a crash."""
    return [text, f"look {text}", f"seen {text}", f"About {text}."]


def in_short(item: dict[str, Any]) -> str:
    if item.get("type") == "function_call":
        return f"look {item['arguments'].split(chr(34))[3]}"
    if item.get("type") == "function_call_output":
        return str(item["output"])
    content = item["content"]
    return content if isinstance(content, str) else str(content[0]["text"])

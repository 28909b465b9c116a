"""`agentexec conversations`: the list, and what was said in one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import agentexec as ax
from tests.deployment import Deployment, run_in_process

SAID: list[Any] = [
    {"role": "user", "content": "My key is sk-proj-1234567890abcdefghij. Where is my order?"},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"order": 7}'},
    {"type": "function_call_output", "call_id": "c1", "output": "on its way"},
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "On its way.\nBye."}],
    },
]


def test_conversations_are_listed_by_labels_and_their_histories_printed(
    tmp_path: Path, sqlite_tables: str
) -> None:
    deployment = Deployment(tmp_path, sqlite_tables)
    named = "a/messages ?\x1b"
    ax.conversation(named, task="support", metadata={"tenant": "a"}).begin_sync()
    ax.conversation("-other", task="support", metadata={"tenant": "b"}).begin_sync()
    asyncio.run(ax.Session(named).add_items(SAID))

    def command(*arguments: str) -> str:
        code, out, err = run_in_process(deployment, "conversations", *arguments)
        assert code == 0, err
        return out

    listed = command("--metadata", "tenant=a")
    assert "a/messages ?\\x1b  support  0" in listed and "other" not in listed
    assert [row["id"] for row in json.loads(command("--json"))] == [named, "-other"]
    user, *others = command(named).splitlines()
    assert user.startswith("user: My key is ") and user.endswith("Where is my order?")
    assert "1234567890" not in user, "secrets are hidden"
    assert others == ['look({"order": 7})', "-> on its way", "assistant: On its way.", "Bye."]
    assert [entry["number"] for entry in json.loads(command(named, "--limit", "2", "--json"))] == [3, 4]
    assert command("--", "-other") == ""
    code, _, err = run_in_process(deployment, "conversations", named, "-m", "tenant=b")
    assert code != 0 and "There is no conversation" in err
    deployment.close()

"""Messages that a mailbox receives."""

from __future__ import annotations

import pytest

from agentexec.state.messages import CANCEL, DONE, EVENTS, format_message, parse_messages
from agentexec.task import new_agent_id


def test_a_message_has_the_form_that_other_releases_and_backends_send() -> None:
    agent_id = new_agent_id()
    assert format_message(DONE, agent_id) == f"done {agent_id}"
    assert format_message(CANCEL, agent_id) == f"cancel {agent_id}"
    assert format_message(EVENTS, agent_id) == f"events {agent_id}"


@pytest.mark.parametrize("kind", [DONE, CANCEL, EVENTS])
def test_only_messages_of_the_wanted_kind_are_read(kind: str) -> None:
    agent_ids = {name: new_agent_id() for name in (DONE, CANCEL, EVENTS)}
    messages = [format_message(name, agent_id) for name, agent_id in agent_ids.items()]
    assert parse_messages(messages, kind) == [agent_ids[kind]]


def test_a_message_without_an_agent_id_is_left_out() -> None:
    assert parse_messages(["done", "done ", "done nonsense", "", "donee 1"], DONE) == []

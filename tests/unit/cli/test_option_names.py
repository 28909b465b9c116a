"""Errors of calls, as a user of the command line reads them."""

from __future__ import annotations

import pytest

from agentexec.cli.option_names import with_option_names
from agentexec.cli.verbs import get_command

MESSAGES = {
    ("fork", "at= must be the number of a turn."): "--at must be the number of a turn.",
    ("fork", "queue_name= must not be empty."): "--queue must not be empty.",
    (
        "fork",
        "Task 1 has several runs; name one with run=: A#1.",
    ): "Task 1 has several runs; name one with --run: A#1.",
    ("retry", "from_turn= must be 1 or more."): "--from must be 1 or more.",
    (
        "retry",
        "run= names the run of from_turn=, which is missing.",
    ): "--run names the run of --from, which is missing.",
    ("enqueue", "on_budget= must be ask."): "--on-budget must be ask.",
    ("enqueue", "context= is too large."): "JSON|@FILE|- is too large.",
    ("enqueue", 'Write it like budget="$2.00".'): 'Write it like --budget "$2.00".',
    ("enqueue", "budget: 'budget=' is not a budget."): "budget: 'budget=' is not a budget.",
    ("enqueue", "write it like budget=$50/day"): "write it like budget=$50/day",
    ("enqueue", "max_crashes= must be 1."): "max_crashes= must be 1.",
}


@pytest.mark.parametrize(("verb", "message"), MESSAGES)
def test_a_message_names_the_options_of_the_command(verb: str, message: str) -> None:
    assert with_option_names(message, get_command(verb)) == MESSAGES[verb, message]

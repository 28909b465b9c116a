"""Every backend of agentexec against a model of its messages: mailboxes, watches, live events, followers, leaderships.

Nothing expires within a run, so nothing depends on the clock.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from agentexec.state.backend import StateBackend
from agentexec.state.messages import DONE, EVENTS, format_message
from agentexec.task import new_agent_id
from tests.integration.state.test_backend_model import BOUNDED

SECONDS = 3600.0
MAILBOXES, ROLES, OWNERS, QUEUES = (0, 1), ("a", "b"), ("red", "blue"), ("first", "second")

mailboxes, roles, owners, queues = map(st.sampled_from, (MAILBOXES, ROLES, OWNERS, QUEUES))
tasks = st.lists(st.integers(0, 2), max_size=3, unique=True)
texts = st.lists(st.sampled_from(["{}", '{"a": 1}', '"é\\u0000"', "x" * 900]), min_size=1, max_size=3)


class MessagesMachine(RuleBasedStateMachine):
    """Calls to a backend, each beside what the model expects of it."""

    def __init__(self, backend: StateBackend) -> None:
        super().__init__()
        self.backend = backend
        self.run = uuid4().hex
        self.ids = {queue: [new_agent_id() for _ in range(3)] for queue in QUEUES}
        self.mail: dict[int, list[str]] = defaultdict(list)
        self.watches: set[tuple[str, UUID, int]] = set()
        self.follows: set[tuple[str, UUID, int]] = set()
        self.events: dict[tuple[str, UUID], list[str]] = defaultdict(list)
        self.seen: dict[tuple[str, UUID], int] = defaultdict(int)
        self.leaders: dict[str, str] = {}

    def queue(self, name: str) -> str:
        return f"{name}-{self.run}"

    def mailbox(self, number: int) -> str:
        return f"mail-{number}-{self.run}"

    @rule(mailbox=mailboxes, texts=texts)
    def send(self, mailbox: int, texts: list[str]) -> None:
        self.backend.send(self.mailbox(mailbox), texts)
        self.mail[mailbox] += texts

    @rule(mailbox=mailboxes)
    def receive(self, mailbox: int) -> None:
        assert self.backend.receive(self.mailbox(mailbox), 0.0) == self.mail.pop(mailbox, [])

    @rule(queue=queues, tasks=tasks, mailbox=mailboxes)
    def watch(self, queue: str, tasks: list[int], mailbox: int) -> None:
        self.backend.watch(
            self.queue(queue), [self.ids[queue][task] for task in tasks], self.mailbox(mailbox)
        )
        self.watches |= {(queue, self.ids[queue][task], mailbox) for task in tasks}

    @rule(queue=queues, task=st.integers(0, 2))
    def notify_done(self, queue: str, task: int) -> None:
        agent_id = self.ids[queue][task]
        self.backend.notify_done(self.queue(queue), [agent_id])
        for mailbox in MAILBOXES:
            if (queue, agent_id, mailbox) in self.watches:
                self.watches.remove((queue, agent_id, mailbox))
                self.mail[mailbox].append(format_message(DONE, agent_id))

    @rule(queue=queues, tasks=tasks, mailbox=mailboxes)
    def follow(self, queue: str, tasks: list[int], mailbox: int) -> None:
        self.backend.follow(
            self.queue(queue), [self.ids[queue][task] for task in tasks], self.mailbox(mailbox)
        )
        self.follows |= {(queue, self.ids[queue][task], mailbox) for task in tasks}

    @rule(queue=queues, task=st.integers(0, 2), texts=texts)
    def publish(self, queue: str, task: int, texts: list[str]) -> None:
        agent_id = self.ids[queue][task]
        self.backend.publish(self.queue(queue), {agent_id: texts})
        self.events[queue, agent_id] += texts
        for mailbox in MAILBOXES:
            if (queue, agent_id, mailbox) in self.follows:
                self.mail[mailbox].append(format_message(EVENTS, agent_id))

    @rule(queue=queues, tasks=tasks)
    def read_new_events(self, queue: str, tasks: list[int]) -> None:
        after = {self.ids[queue][task]: self.seen[queue, self.ids[queue][task]] for task in tasks}
        found = self.backend.read_events(self.queue(queue), after)
        assert set(found) == {agent_id for agent_id in after if self.events[queue, agent_id]}
        for agent_id, events in found.items():
            assert [event.text for event in events] == self.events.pop((queue, agent_id))
            numbers = [event.number for event in events]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert numbers[0] > after[agent_id]
            self.seen[queue, agent_id] = numbers[-1]

    @rule(role=roles, owner=owners)
    def acquire_leadership(self, role: str, owner: str) -> None:
        acquired = self.backend.acquire_leadership(f"{role}-{self.run}", owner, SECONDS)
        assert acquired == (self.leaders.setdefault(role, owner) == owner)

    @rule(role=roles, owner=owners)
    def release_leadership(self, role: str, owner: str) -> None:
        self.backend.release_leadership(f"{role}-{self.run}", owner)
        if self.leaders.get(role) == owner:
            del self.leaders[role]

    @invariant()
    def followed_tasks_are_those_that_somebody_follows(self) -> None:
        for queue in QUEUES:
            expected = {agent_id for name, agent_id, _ in self.follows if name == queue}
            assert self.backend.followed_tasks(self.queue(queue), self.ids[queue]) == expected


def test_every_backend_agrees_with_the_model(modeled_backend: StateBackend) -> None:
    factory: Any = partial(MessagesMachine, modeled_backend)
    run_state_machine_as_test(factory, settings=BOUNDED)

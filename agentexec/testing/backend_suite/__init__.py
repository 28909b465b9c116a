"""The promises of a state backend as tests.

Subclass `BackendSuite`, provide your backend, and run pytest:

    class TestMyBackend(BackendSuite):
        @pytest.fixture
        def backend(self):
            backend = MyBackend(...)
            backend.ping()
            yield backend
            backend.close()

        def empty(self, backend):
            ...  # make it forget everything, like a server that lost its data

The server may hold other data: each test has its own queue, mailboxes and roles.
"""

# ruff: noqa: E402 - pytest must know the modules of the tests before they are imported

from __future__ import annotations

from uuid import uuid4

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in (
            "buckets",
            "claims",
            "coordination",
            "events",
            "fairness",
            "forgeries",
            "groups",
            "leases",
            "operations",
        )
    )
)

from agentexec.state.backend import PROTOCOL_VERSION, LostLeases, StateBackend
from agentexec.state.loading import required_names
from agentexec.task import Entry, Lease, new_agent_id
from agentexec.testing.backend_suite.buckets import BucketTests
from agentexec.testing.backend_suite.claims import ClaimTests
from agentexec.testing.backend_suite.coordination import CoordinationTests
from agentexec.testing.backend_suite.events import EventTests
from agentexec.testing.backend_suite.fairness import FairnessTests
from agentexec.testing.backend_suite.forgeries import ForgeryTests
from agentexec.testing.backend_suite.groups import GroupTests
from agentexec.testing.backend_suite.leases import LeaseTests
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim, push, wait_until

__all__ = ["BackendSuite", "wait_until"]


class BackendSuite(
    BucketTests,
    ClaimTests,
    FairnessTests,
    LeaseTests,
    ForgeryTests,
    GroupTests,
    CoordinationTests,
    EventTests,
):
    """All tests of a state backend. A subclass provides the fixture `backend` and the method `empty`."""

    def empty(self, backend: StateBackend) -> None:
        """Make the backend forget everything, like a server that lost its data.

        Args:
            backend: The backend.
        """
        raise NotImplementedError("a subclass of BackendSuite implements empty")

    @pytest.fixture
    def queue(self) -> str:
        return f"suite-{uuid4().hex}"

    @pytest.fixture
    def name(self) -> str:
        """Name for a mailbox or a role."""
        return f"suite-{uuid4().hex}"

    def test_event_numbers_continue_above_those_that_were_lost(
        self, backend: StateBackend, queue: str
    ) -> None:
        agent_id = new_agent_id()
        backend.publish(queue, {agent_id: ["lost"]})
        [lost] = backend.read_events(queue, {agent_id: 0})[agent_id]
        self.empty(backend)
        backend.publish(queue, {agent_id: ["new"]})
        [event] = backend.read_events(queue, {agent_id: lost.number})[agent_id]
        assert event.text == "new"

    def test_it_has_every_name_of_the_protocol(self, backend: StateBackend) -> None:
        assert [name for name in required_names() if not hasattr(backend, name)] == []

    def test_it_names_the_version_of_the_protocol_that_this_suite_tests(self, backend: StateBackend) -> None:
        assert getattr(backend, "protocol_version", None) == PROTOCOL_VERSION

    def test_it_can_be_used_again_after_close(self, backend: StateBackend, queue: str) -> None:
        backend.ping()
        backend.close()
        backend.push(queue, [Entry(new_agent_id())])
        assert len(claim(backend, queue)) == 1

    def test_an_emptied_index_is_noticed(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 2)
        assert not backend.is_intact(queue)
        backend.mark_intact(queue)
        assert backend.is_intact(queue)
        assert not backend.is_intact(f"{queue}-other")
        self.empty(backend)
        assert not backend.is_intact(queue)
        assert backend.unknown_tasks(queue, pushed) == pushed
        assert backend.renew(queue, "worker", [Lease(pushed[0], 1)], LONG_LEASE) == LostLeases(
            [], [pushed[0]]
        )
        backend.push(queue, [Entry(pushed[0], epoch=1)])
        assert claim(backend, queue) == [Lease(pushed[0], 2)]
        backend.mark_intact(queue)
        assert backend.is_intact(queue)

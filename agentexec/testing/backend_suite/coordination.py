"""Tests of waiting for tasks, mailboxes and leadership."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from agentexec.state.backend import StateBackend
from agentexec.task import Lease, new_agent_id
from agentexec.testing.backend_suite.operations import (
    LONG_LEASE,
    SHORT_LEASE,
    WAIT_TIMEOUT,
    claim,
    ids,
    push,
    running_in_thread,
    wait_until,
)


class CoordinationTests:
    """Tests of wait, wake, watch, send, receive and acquire_leadership."""

    pick_up_seconds = 0.5
    """Seconds within which a waiting worker notices a push. A server that notifies workers takes far less."""

    def test_waiting_ends_in_time(self, backend: StateBackend, queue: str) -> None:
        started = time.monotonic()
        backend.wait(queue, 0)
        backend.wait(queue, 0.2)
        assert time.monotonic() - started < 2

    def test_a_push_wakes_a_waiting_worker(self, backend: StateBackend, queue: str) -> None:
        with running_in_thread(lambda: backend.wait(queue, WAIT_TIMEOUT)) as ended:
            push(backend, queue, 1)
            assert ended() < self.pick_up_seconds
        assert len(claim(backend, queue)) == 1

    def test_a_push_just_before_waiting_is_not_missed(self, backend: StateBackend, queue: str) -> None:
        assert claim(backend, queue) == []
        push(backend, queue, 1)
        started = time.monotonic()
        backend.wait(queue, WAIT_TIMEOUT)
        assert time.monotonic() - started < self.pick_up_seconds

    def test_a_wait_for_several_queues_ends_with_a_push_to_any(
        self, backend: StateBackend, queue: str, name: str
    ) -> None:
        queues = [queue, f"{name}-second", f"{name}-third"]
        for last in (queues[0], queues[2]):
            for each in queues:
                assert claim(backend, each) == []
            with running_in_thread(lambda: backend.wait(queues, WAIT_TIMEOUT)) as ended:
                push(backend, last, 1)
                assert ended() < self.pick_up_seconds
            assert len(claim(backend, last)) == 1

    def test_a_push_is_not_missed_between_the_claims_of_several_queues(
        self, backend: StateBackend, queue: str, name: str
    ) -> None:
        queues = [queue, f"{name}-second"]
        assert claim(backend, queues[0]) == []
        push(backend, queues[0], 1)
        assert claim(backend, queues[1]) == []
        started = time.monotonic()
        backend.wait(queues, WAIT_TIMEOUT)
        assert time.monotonic() - started < self.pick_up_seconds

    def test_as_many_workers_wake_as_tasks_are_pushed(self, backend: StateBackend, queue: str) -> None:
        def work(number: int) -> list[Lease]:
            deadline = time.monotonic() + WAIT_TIMEOUT
            while time.monotonic() < deadline:
                if leases := claim(backend, queue, worker=f"worker-{number}"):
                    return leases
                backend.wait(queue, WAIT_TIMEOUT)
            return []

        with ThreadPoolExecutor(3) as threads:
            workers = [threads.submit(work, number) for number in range(3)]
            time.sleep(0.2)  # it cannot be seen from outside that a worker waits
            started = time.monotonic()
            pushed = push(backend, queue, 3)
            claimed = [lease for worker in workers for lease in worker.result(2 * WAIT_TIMEOUT)]
        assert time.monotonic() - started < 3 * self.pick_up_seconds
        assert sorted(ids(claimed)) == sorted(pushed)

    def test_a_released_task_wakes_a_waiting_worker(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue)
        assert claim(backend, queue) == []
        with running_in_thread(lambda: backend.wait(queue, WAIT_TIMEOUT)) as ended:
            assert backend.release(queue, lease)
            assert ended() < self.pick_up_seconds

    def test_workers_can_be_woken_without_a_task(self, backend: StateBackend, queue: str) -> None:
        with running_in_thread(lambda: backend.wait(queue, WAIT_TIMEOUT)) as ended:
            backend.wake(queue, 1)
            assert ended() < self.pick_up_seconds

    def test_watchers_are_notified_once(self, backend: StateBackend, queue: str, name: str) -> None:
        watched, other = new_agent_id(), new_agent_id()
        backend.watch(queue, [watched, other], f"{name}-a")
        backend.watch(queue, [watched], f"{name}-a")
        backend.watch(queue, [watched], f"{name}-b")
        backend.notify_done(queue, [new_agent_id(), watched])
        assert backend.receive(f"{name}-a", 1) == [f"done {watched}"]
        assert backend.receive(f"{name}-b", 1) == [f"done {watched}"]
        backend.notify_done(queue, [watched])
        backend.notify_done(queue, [other])
        assert backend.receive(f"{name}-a", 1) == [f"done {other}"]
        assert backend.receive(f"{name}-b", 0.05) == []

    def test_a_watch_outlives_the_task(self, backend: StateBackend, queue: str, name: str) -> None:
        push(backend, queue, 1)
        leases = claim(backend, queue)
        backend.watch(queue, ids(leases), name)
        backend.finish(queue, leases)
        backend.notify_done(queue, ids(leases))
        assert backend.receive(name, 1) == [f"done {leases[0].agent_id}"]

    def test_messages_come_in_order_and_together(self, backend: StateBackend, name: str) -> None:
        texts = [f"message {number} \N{SNOWMAN}" for number in range(2500)]
        backend.send(name, texts[:2000])
        backend.send(name, texts[2000:])
        backend.send(name, [])
        assert backend.receive(name, 1) == texts
        assert backend.receive(name, 0) == []

    def test_mailboxes_are_separate(self, backend: StateBackend, name: str) -> None:
        backend.send(name, ["for me"])
        assert backend.receive(f"{name}-other", 0.05) == []
        assert backend.receive(name, 1) == ["for me"]

    def test_a_message_ends_the_wait_for_it(self, backend: StateBackend, name: str) -> None:
        received: list[str] = []
        with running_in_thread(lambda: received.extend(backend.receive(name, WAIT_TIMEOUT))) as ended:
            backend.send(name, ["hello"])
            assert ended() < self.pick_up_seconds
        assert received == ["hello"]

    def test_waiting_for_messages_ends_in_time(self, backend: StateBackend, name: str) -> None:
        started = time.monotonic()
        assert backend.receive(name, 0.2) == []
        assert 0.15 < time.monotonic() - started < 2

    def test_one_owner_leads(self, backend: StateBackend, name: str) -> None:
        assert backend.acquire_leadership(name, "first", LONG_LEASE)
        assert not backend.acquire_leadership(name, "second", LONG_LEASE)
        assert backend.acquire_leadership(name, "first", LONG_LEASE)
        assert backend.acquire_leadership(f"{name}-other", "second", LONG_LEASE)

    def test_a_leadership_expires(self, backend: StateBackend, name: str) -> None:
        assert backend.acquire_leadership(name, "first", SHORT_LEASE)
        assert wait_until(lambda: backend.acquire_leadership(name, "second", LONG_LEASE))
        assert not backend.acquire_leadership(name, "first", LONG_LEASE)

    def test_a_leadership_is_kept_by_renewing_it(self, backend: StateBackend, name: str) -> None:
        assert backend.acquire_leadership(name, "first", SHORT_LEASE)
        assert backend.acquire_leadership(name, "first", LONG_LEASE)
        time.sleep(1.5 * SHORT_LEASE)
        assert not backend.acquire_leadership(name, "second", LONG_LEASE)

    def test_only_the_leader_can_resign(self, backend: StateBackend, name: str) -> None:
        assert backend.acquire_leadership(name, "first", LONG_LEASE)
        backend.release_leadership(name, "second")
        assert not backend.acquire_leadership(name, "second", LONG_LEASE)
        backend.release_leadership(name, "first")
        assert backend.acquire_leadership(name, "second", LONG_LEASE)

    def test_one_of_many_threads_leads(self, backend: StateBackend, name: str) -> None:
        with ThreadPoolExecutor(8) as threads:
            leads = list(
                threads.map(
                    lambda number: backend.acquire_leadership(name, f"owner-{number}", LONG_LEASE), range(8)
                )
            )
        assert sum(leads) == 1

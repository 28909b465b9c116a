"""Stand-ins for what surrounds the parts of a worker process, and the tasks they handle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.errors import UnavailableError
from agentexec.policy import CrashCounts
from agentexec.task import Lease, new_agent_id
from agentexec.worker.leased_tasks import LeasedTasks
from agentexec.worker.slots import Slots
from agentexec.worker.suspects import Suspects

MAX_CRASHES = 3


def new_lease(epoch: int = 1) -> Lease:
    return Lease(new_agent_id(), epoch)


def admitted(task_name: str = "work", crashes: int = 0) -> Admitted:
    return Admitted(new_lease(), task_name, None, 1 + crashes, CrashCounts(crashes, crashes))


class FakeWriter:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []

    def end(self, ending: Ending) -> None:
        self.endings.append(ending)


class FakeRecord:
    """The record, as far as suspects write to it; it can be away."""

    def __init__(self) -> None:
        self.cleared: list[Lease] = []
        self.failures_left = 0

    def clear_crashes(self, lease: Lease) -> None:
        if self.failures_left:
            self.failures_left -= 1
            raise UnavailableError("The database is away.")
        self.cleared.append(lease)


class Held:
    """Slots, suspects and leases of a process; calls that belong to another thread run in `run_submitted`."""

    def __init__(self, slots: int = 2, queue: str = "") -> None:
        self.record = FakeRecord()
        self.absolved = 0
        self._submitted: list[Callable[[], object]] = []
        self.slots = Slots(slots, on_release=lambda agent_id: self.suspects.note_wait(agent_id))
        self.suspects = Suspects(
            MAX_CRASHES,
            clear_crashes=self.record.clear_crashes,
            submit=self._submitted.append,
            on_absolved=self._note_absolved,
        )
        self.tasks = LeasedTasks(self.slots, self.suspects, queue)

    def run_submitted(self) -> None:
        while self._submitted:
            self._submitted.pop(0)()

    def start(self, tasks: Sequence[Admitted]) -> None:
        """Give tasks what they hold when they start."""
        self.tasks.add(task.lease for task in tasks)
        self.slots.acquire(len(tasks))
        for task in tasks:
            self.suspects.add([task])

    @property
    def free_slots(self) -> int:
        free = self.slots.acquire(1_000)
        self.slots.release(free)
        return free

    def _note_absolved(self) -> None:
        self.absolved += 1
        self.slots.notify()

"""A burst ends once every worker process has looked for tasks while none of them had any."""

from __future__ import annotations

import os

from agentexec.worker.burst import Burst
from agentexec.worker.child_processes import ChildProcess
from agentexec.worker.scoreboard import Cell, Scoreboard
from agentexec.worker.turnover import Turnover


class Workers:
    """Two worker processes, and what they say."""

    def __init__(self) -> None:
        self.board = Scoreboard.new()
        self.children = [ChildProcess("worker-1", is_worker=True), ChildProcess("worker-2", is_worker=True)]
        for child in self.children:
            child.cell = self.board.take()
            child.start(os.getpid(), 0.0)
        self.burst = Burst()

    def cell(self, number: int) -> Cell:
        cell = self.children[number].cell
        assert cell is not None
        return cell

    def find_nothing(self, *numbers: int, times: int = 2) -> None:
        for number in numbers:
            turnover = Turnover(self.cell(number), 10, burst=True)
            for _ in range(times):
                turnover.begin_claim()
                turnover.end_claim(empty=True)

    @property
    def over(self) -> bool:
        return self.burst.is_over(self.children)


def test_it_ends_when_all_have_found_nothing_twice() -> None:
    workers = Workers()
    assert not workers.over
    workers.find_nothing(0, times=5)
    assert not workers.over, "the other one may run a task that enqueues more"
    workers.find_nothing(1, times=1)
    assert not workers.over, "that claim may have begun before"
    workers.find_nothing(1, times=1)
    assert workers.over


def test_a_task_that_was_started_or_is_being_claimed_starts_the_wait_again() -> None:
    workers = Workers()
    assert not workers.over
    workers.cell(0).note_started(1)
    workers.find_nothing(0, 1)
    assert not workers.over, "one has run meanwhile"
    workers.find_nothing(0, 1)
    workers.cell(1).begin_claim()
    assert not workers.over, "it may have found the last task"
    workers.cell(1).end_claim(empty=True)
    assert workers.over


def test_a_process_that_is_missing_or_new_is_waited_for() -> None:
    workers = Workers()
    assert not workers.over
    workers.find_nothing(0, 1)
    workers.children[1].end()
    assert not workers.over
    workers.children[1].start(os.getpid(), 0.0)
    workers.board.give_back(workers.cell(1))
    workers.children[1].cell = workers.board.take()
    workers.find_nothing(0, 1, times=9)
    assert not workers.over
    workers.find_nothing(0, 1)
    assert workers.over
    assert not Burst().is_over([])


def test_claims_of_a_worker_that_stays_are_not_counted() -> None:
    turnover = Turnover(Cell.alone(), 10)
    turnover.begin_claim()
    turnover.end_claim(empty=True)
    assert turnover.cell.empty_claims == 0

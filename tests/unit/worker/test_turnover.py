"""A process and its successor together use the slots of one, and each starts no more tasks than it may."""

from __future__ import annotations

import os
import time
from uuid import uuid4

import pytest

from agentexec.worker import turnover as turnover_module
from agentexec.worker.scoreboard import CELLS, Cell, Scoreboard, State
from agentexec.worker.turnover import Turnover


def test_a_successor_claims_for_the_slots_that_its_predecessors_do_not_use() -> None:
    board = Scoreboard.new()
    first, second = board.take(), board.take()
    turnover = Turnover(board.take(), 10, predecessors=[(first, first.start), (second, second.start)])
    assert turnover.quota(0, 10) == 0, "both may still claim"
    first.note_state(State.SERVING)
    assert turnover.quota(0, 10) == 0
    for cell, used in ((first, 3), (second, 5)):
        Turnover(cell, 10).note_retiring(used)
    assert turnover.quota(0, 10) == 2
    assert turnover.quota(0, 1) == 0, "it uses nine itself"
    board.give_back(first)
    assert turnover.quota(0, 10) == 5
    again = board.take()
    assert again.number == first.number
    again.note_state(State.SERVING)
    assert turnover.quota(0, 10) == 5, "the cell belongs to another process by now"
    board.give_back(second)
    assert turnover.quota(0, 10) == 10
    board.close()


def test_a_process_starts_no_more_tasks_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover_module.secrets, "randbelow", lambda limit: limit - 1)
    turnover = Turnover(Cell.alone(), 3, max_tasks=20)
    turnover.cell.note_state(State.SERVING)
    assert turnover.quota(0, 3) == 3
    turnover.note_started(14)
    assert turnover.cell.state is State.SERVING
    turnover.note_started(15)
    assert turnover.cell.state is State.DUE, "the successor starts while the last three tasks are claimed"
    assert turnover.quota(17, 3) == 1, "a tenth fewer than 20, by chance"
    assert turnover.quota(18, 3) is None
    assert turnover.quota(19, 3) is None


def test_a_limit_of_one_task_is_exact_and_needs_no_process_in_reserve() -> None:
    turnover = Turnover(Cell.alone(), 1, max_tasks=1)
    turnover.cell.note_state(State.SERVING)
    turnover.note_started(0)
    assert (turnover.quota(0, 1), turnover.cell.state) == (1, State.SERVING)
    turnover.note_started(1)
    assert (turnover.quota(1, 1), turnover.cell.state) == (None, State.DUE)


def test_what_processes_write_is_seen_through_the_descriptor_and_garbage_is_survived() -> None:
    board = Scoreboard.new()
    cell = board.take()
    theirs = Scoreboard(board.descriptor).cell(cell.number)
    culprit = uuid4()
    theirs.note_answer()
    theirs.note_culprit(culprit)
    theirs.note_started(7)
    theirs.begin_claim()
    assert (cell.started, cell.culprit, cell.claiming) == (7, culprit, True)
    assert 0 < cell.answered_at <= time.monotonic()
    theirs.end_claim(empty=True)
    assert (cell.claiming, cell.empty_claims) == (False, 1)
    cell.order_retirement()
    assert theirs.retirement_ordered
    os.pwrite(board.descriptor, b"\xff" * 88, cell.number * 96 + 8)
    assert cell.state is State.SERVING
    assert (cell.answered_at, cell.used_slots) == (0.0, 0)
    cells = [board.take() for _ in range(CELLS - 1)]
    assert board.free_cells == 0
    board.give_back(cells[0])
    assert board.free_cells == 1
    board.close()

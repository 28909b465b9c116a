"""The scoreboard: memory that a supervisor shares with its worker processes, with one cell for each of them.

Each field of a cell has one writer, and a process that is killed in the middle of a write harms only its own cell. Nobody
waits for anybody: a worker process that hangs stops writing, which is what the supervisor looks for.
"""

from __future__ import annotations

import enum
import math
import mmap
import os
import struct
import tempfile
import time
from typing import Self
from uuid import UUID

CELLS = 4096
CELL_BYTES = 96

NUMBER = struct.Struct("q")
MOMENT = struct.Struct("d")


class State(enum.IntEnum):
    """State of a worker process, as it says itself."""

    STARTING = 0
    SERVING = 1
    """It claims tasks, or would if its predecessors left it any."""
    DUE = 2
    """It claims the last tasks before it is to be replaced."""
    RETIRING = 3
    """It claims nothing more; its tasks may run on."""


class _Field(enum.IntEnum):
    """Place of a field in a cell."""

    START = 0
    STATE = 8
    ORDER = 16
    USED = 24
    STARTED = 32
    EMPTY_CLAIMS = 40
    CLAIMING = 48
    ANSWERED_AT = 56
    CULPRIT = 64


class Cell:
    """The cell of one worker process.

    Threads: each field has one writing thread at a time. Any thread of any of the processes may read.
    """

    __slots__ = ("_memory", "_offset", "number")

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self.number = number
        self._memory = memory
        self._offset = number * CELL_BYTES

    def _number(self, field: _Field) -> int:
        found: int = NUMBER.unpack_from(self._memory, self._offset + field)[0]
        return found

    def _note(self, field: _Field, value: int) -> None:
        NUMBER.pack_into(self._memory, self._offset + field, value)

    @property
    def start(self) -> int:
        """Number of the process's start among all starts of the supervisor; 0 in a free cell."""
        return self._number(_Field.START)

    @property
    def state(self) -> State:
        """State of the process. What is written there by mistake counts as SERVING."""
        number = self._number(_Field.STATE)
        return State(number) if 0 <= number <= State.RETIRING else State.SERVING

    def note_state(self, state: State) -> None:
        """Note the state, by the process itself."""
        self._note(_Field.STATE, state)

    @property
    def retirement_ordered(self) -> bool:
        """True once the supervisor wants the process to finish its tasks and end."""
        return bool(self._number(_Field.ORDER))

    def order_retirement(self) -> None:
        """Have the process finish its tasks and end, by the supervisor."""
        self._note(_Field.ORDER, 1)

    @property
    def used_slots(self) -> int:
        """Slots that the tasks of a retiring process still use."""
        return max(0, self._number(_Field.USED))

    def note_used_slots(self, number: int) -> None:
        """Note the slots in use, by the process itself."""
        self._note(_Field.USED, number)

    @property
    def started(self) -> int:
        """Number of tasks that the process has started."""
        return self._number(_Field.STARTED)

    def note_started(self, number: int) -> None:
        """Note the number of started tasks, by the process itself."""
        self._note(_Field.STARTED, number)

    @property
    def empty_claims(self) -> int:
        """Number of claims that found no task while the process had none."""
        return self._number(_Field.EMPTY_CLAIMS)

    @property
    def claiming(self) -> bool:
        """True from before a claim until its tasks have started, if it finds any."""
        return bool(self._number(_Field.CLAIMING))

    def begin_claim(self) -> None:
        """Note that the process looks for tasks."""
        self._note(_Field.CLAIMING, 1)

    def end_claim(self, *, empty: bool) -> None:
        """Note that the process has looked; `empty`: it found no task, and has none."""
        if empty:
            self._note(_Field.EMPTY_CLAIMS, self.empty_claims + 1)
        self._note(_Field.CLAIMING, 0)

    @property
    def answered_at(self) -> float:
        """Monotonic moment of the event loop's last answer; 0 before the first one."""
        moment: float = MOMENT.unpack_from(self._memory, self._offset + _Field.ANSWERED_AT)[0]
        return moment if math.isfinite(moment) else 0.0

    def note_answer(self) -> None:
        """Note that the event loop answers now, or has nothing to do."""
        MOMENT.pack_into(self._memory, self._offset + _Field.ANSWERED_AT, time.monotonic())
        self.note_culprit(None)

    @property
    def culprit(self) -> UUID | None:
        """Task that blocks the event loop, if it is known."""
        place = self._offset + _Field.CULPRIT
        held = bytes(self._memory[place : place + 16])
        return UUID(bytes=held) if any(held) else None

    def note_culprit(self, agent_id: UUID | None) -> None:
        """Note the task that blocks the event loop."""
        place = self._offset + _Field.CULPRIT
        self._memory[place : place + 16] = bytes(16) if agent_id is None else agent_id.bytes

    def note_end(self) -> None:
        """Note that nobody watches the event loop any more, as the process is about to end."""
        MOMENT.pack_into(self._memory, self._offset + _Field.ANSWERED_AT, 0.0)

    @classmethod
    def alone(cls) -> Self:
        """Return a cell of a process without a supervisor."""
        return cls(mmap.mmap(-1, CELL_BYTES), 0)

    def clear(self, start: int = 0) -> None:
        """Give the cell to the start with a number, or free it; by the supervisor, while no process has it."""
        self._memory[self._offset : self._offset + CELL_BYTES] = bytes(CELL_BYTES)
        self._note(_Field.START, start)


class Scoreboard:
    """The cells, in memory that is passed on as a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Map the memory behind a descriptor."""
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, CELLS * CELL_BYTES)
        self._starts = 0
        self._free = list(range(CELLS - 1, -1, -1))

    @classmethod
    def new(cls) -> Scoreboard:
        """Make a scoreboard for the processes of this supervisor."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("agentexec-scoreboard")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, CELLS * CELL_BYTES)
        return cls(descriptor)

    def cell(self, number: int) -> Cell:
        """Return a cell by its number."""
        return Cell(self._memory, number)

    @property
    def free_cells(self) -> int:
        """Number of processes that can still be started, by the supervisor."""
        return len(self._free)

    def take(self) -> Cell:
        """Take a free cell for a process that is about to start, by the supervisor."""
        self._starts += 1
        cell = self.cell(self._free.pop())
        cell.clear(self._starts)
        return cell

    def give_back(self, cell: Cell) -> None:
        """Free the cell of a process that is gone, by the supervisor."""
        cell.clear()
        self._free.append(cell.number)

    def close(self) -> None:
        """Close the descriptor of this process, which has made the memory. Its cells stay readable here."""
        os.close(self.descriptor)

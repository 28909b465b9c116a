"""Lanes of tasks with a fairness key, whose keys take turns.

Self-clocked fair queueing: a task's turn is one step after the last turn of its key, or after the turn of the task that was
claimed last if that is later. A step is 1 by the key's weight, and claims take the lowest turns. Tasks are pushed to the lane
UNRANKED, without a lock and in any transaction; claims give them their turns, which moves them to the lane RANKED. So a
turn is never given by a transaction that commits late, and a task that was canceled leaves no gap.

Tasks without a key count as one more key of weight 1. Their lanes know nothing of it: their next turn is a counter.
"""

from __future__ import annotations

import json
import time
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, text

from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.transactions import writing
from agentexec.state.sql_backend.dialects import SqlDialect
from agentexec.state.sql_backend.statements import by_id, found_rows
from agentexec.state.sql_models import LEASED, PARKED, RANKED, RANKED_ONLY, UNRANKED, Counter, QueueEntry
from agentexec.task import Entry, Priority

TURN = 1_000_000
"""One turn of a key of weight 1."""

MAX_STEP = 1000 * TURN
"""Step of the lowest weight."""

MAX_TURN = 2**60
"""A turn above it was forged."""

RANKED_LANES = tuple(RANKED + priority for priority in Priority)
LANES = (*Priority, LEASED, PARKED, *RANKED_LANES, *(UNRANKED + priority for priority in Priority))

RANK_AT_ONCE = 2 * CHUNK_SIZE
"""Tasks that get their turns in one transaction."""

MAX_KNOWN = 1000
"""Counters that a process remembers: two for each queue and priority."""

MAX_RANK_SECONDS = 0.25
"""Seconds after which a claim takes the tasks that have turns, although others have none yet."""


class NextTasks(NamedTuple):
    """First values of a queue's lanes, HIGH and LOW: when plain tasks are due, turns, and when unranked tasks are due."""

    plain: tuple[int | None, int | None]
    ranked: tuple[int | None, int | None]
    unranked: tuple[int | None, int | None]
    now: int

    @property
    def soonest(self) -> int | None:
        """Time from which the first task may start, in microseconds; None for an empty queue."""
        times = [at for at in (*self.plain, *self.unranked) if isinstance(at, int)]
        if any(turn is not None for turn in self.ranked):
            times.append(self.now)
        return min(times, default=None)

    def is_fair(self, priority: Priority) -> bool:
        """Return True if tasks with a key of this priority are ready."""
        return self.ranked[priority] is not None or self.is_due(self.unranked[priority])

    def is_ready(self, priority: Priority) -> bool:
        """Return True if any tasks of this priority are ready."""
        return self.is_due(self.plain[priority]) or self.is_fair(priority)

    def is_due(self, at: int | None) -> bool:
        """Return True for the time of a task that may start."""
        return isinstance(at, int) and at <= self.now


def flow_of(key: str) -> int:
    """Return the number by which the lanes know a key. Keys with the same number, which nobody finds, share their turns."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), signed=True)


def fairness_columns(entry: Entry) -> dict[str, int | None]:
    """Return the columns that only tasks with a fairness key have."""
    if entry.fairness_key is None:
        return {"flow": None, "step": None}
    return {"flow": flow_of(entry.fairness_key), "step": max(1, round(TURN / entry.fairness_weight))}


def waiting_lane(entry: Entry) -> int:
    """Return the lane to which a task is pushed."""
    return int(entry.priority) if entry.fairness_key is None else UNRANKED + entry.priority


def fits_lane(row: Any) -> bool:
    """Return True if a row's lane is one that a task of its priority can be in, at a turn that a claim can have given."""
    if row.priority not in list(Priority) or row.lane not in LANES:
        return False
    if row.lane not in RANKED_LANES:
        return True
    return row.at <= MAX_TURN and type(row.flow) is int


class FairStatements:
    """Statements on the lanes of tasks with a fairness key."""

    def __init__(self, dialect: SqlDialect) -> None:
        queue, counters, now = QueueEntry.__tablename__, Counter.__tablename__, dialect.now

        def first(lane: int) -> str:
            return f"(SELECT at FROM {queue} WHERE queue = :queue AND lane = {lane} ORDER BY at LIMIT 1)"

        lanes = [start + priority for start in (0, RANKED, UNRANKED) for priority in Priority]
        self.next = text(f"SELECT {', '.join(map(first, lanes))}, {now}")
        self.create_counter = text(
            f"{dialect.insert} INTO {counters} (name, value) VALUES (:name, 0){dialect.on_conflict}"
        )
        self.lock_counters = text(
            f"SELECT name, value FROM {counters} WHERE name IN (:name0, :name1, :name2, :name3) ORDER BY name"
            f"{dialect.for_update}"
        )
        self.advance_counter = text(
            f"UPDATE {counters} SET value = CASE WHEN value < :value OR value > {MAX_TURN} THEN :value ELSE value END "
            "WHERE name = :name"
        )
        self.first_turn = text(
            f"SELECT at FROM {queue} WHERE queue = :queue AND lane = :ranked AND at BETWEEN 0 AND {MAX_TURN} ORDER BY at LIMIT 1"
        )
        self.unranked = found_rows(
            f"SELECT agent_id, epoch, flow, step, (SELECT same.at FROM {queue} same WHERE same.queue = :queue "
            f"AND same.lane = :ranked AND same.{RANKED_ONLY} AND same.flow = {queue}.flow AND same.at <= {MAX_TURN} "
            f"ORDER BY same.at DESC LIMIT 1) AS last_turn "
            f"FROM {queue} WHERE queue = :queue AND lane = :unranked AND at <= {dialect.start} ORDER BY at LIMIT :most"
            f"{dialect.skip_locked}"
        )
        rank = dialect.rank.format(queue=queue)
        self.rank = by_id(rank) if dialect.ranks == "rows" else text(rank)
        self.ranked = found_rows(
            f"SELECT agent_id, epoch, lane, at, grouped FROM {queue} WHERE queue = :queue AND lane = :lane ORDER BY at "
            f"LIMIT :most{dialect.skip_locked}"
        )
        self.plain = found_rows(
            f"SELECT agent_id, epoch, lane, at, grouped FROM {queue} WHERE queue = :queue AND lane = :lane AND at <= {dialect.start} "
            f"ORDER BY at LIMIT :most{dialect.skip_locked}"
        )


Readable = Callable[[Connection, Sequence[Any]], list[Any]]
"""Function that returns the rows of tasks, and removes others."""


class FairLanes:
    """The lanes of tasks with a fairness key, of one engine."""

    def __init__(self, engine: Engine, dialect: SqlDialect, readable: Readable) -> None:
        self._engine = engine
        self._dialect = dialect
        self._readable = readable
        self._sql = FairStatements(dialect)
        self._known: dict[str, int] = {}
        """Turns that counters have reached at least."""
        self._pushed: Counts[str] = Counts()
        """Tasks of each queue that this process has pushed without turns."""

    def read_next(self, connection: Connection, queue: str) -> NextTasks:
        """Return the first values of a queue's lanes, without a lock."""
        values = tuple(connection.execute(self._sql.next, self._dialect.params(queue=queue)).one())
        return NextTasks(values[0:2], values[2:4], values[4:6], values[6])

    def note_pushed(self, queue: str, entries: Sequence[Entry]) -> None:
        """Note tasks that are pushed, perhaps in a transaction that is still open."""
        if keyed := sum(entry.fairness_key is not None for entry in entries):
            self._pushed[queue] += keyed

    def help_rank(self, queue: str) -> None:
        """Give as many tasks their turns as this process has pushed, in thousands.

        So a backlog has its turns before there are workers, and their first claim need not give them all.
        """
        while self._pushed[queue] >= RANK_AT_ONCE:
            self._pushed[queue] -= RANK_AT_ONCE
            for priority in Priority:
                self._rank_some(queue, priority)

    def rank(self, queue: str, first: NextTasks) -> None:
        """Give turns to the tasks that are due, in transactions that are short."""
        deadline = time.monotonic() + MAX_RANK_SECONDS
        for priority in Priority:
            if first.is_due(first.unranked[priority]):
                while self._rank_some(queue, priority) == RANK_AT_ONCE and time.monotonic() < deadline:
                    pass

    def open(self, connection: Connection, queue: str) -> FairClaim:
        """Return a claim within a transaction; call its `close` at the end."""
        return FairClaim(self, connection, queue)

    def rows(self, connection: Connection, queue: str, lane: int, most: int, *, ranked: bool) -> list[Any]:
        """Lock and return the first tasks of a lane that are ready."""
        values = self._dialect.params(queue=queue, lane=lane, most=most)
        statement = self._sql.ranked if ranked else self._sql.plain
        return self._readable(connection, connection.execute(statement, values).all())

    def advance(self, connection: Connection, name: str, turn: int) -> None:
        """Raise a counter to a turn, unless this process knows that it is that high."""
        if self._known.get(name) == turn:
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[name] = turn
        values = {"name": name, "value": turn}
        if connection.execute(self._sql.advance_counter, values).rowcount == 0:
            connection.execute(self._sql.create_counter, {"name": name})
            connection.execute(self._sql.advance_counter, values)

    def first_turn(self, connection: Connection, queue: str, priority: Priority) -> int | None:
        """Return the lowest turn of a lane, None without one."""
        return connection.execute(
            self._sql.first_turn, {"queue": queue, "ranked": RANKED + priority}
        ).scalar()

    def _rank_some(self, queue: str, priority: Priority) -> int:
        """Give turns to the first tasks that are due, and return their number."""
        ranked = RANKED + priority
        with writing(self._engine, relaxed=True, in_index_order=True) as connection:
            counters = self.lock(connection, queue)
            first = self.first_turn(connection, queue, priority)
            now = current_turn(counters[turn_counter(queue, priority)], first)
            values = self._dialect.params(
                queue=queue, ranked=ranked, unranked=UNRANKED + priority, most=RANK_AT_ONCE
            )
            found = connection.execute(self._sql.unranked, values).all()
            rows = self._readable(connection, found)
            last: dict[Any, int] = {}
            turns = []
            for row in rows:
                before = last.get(row.flow, row.last_turn)
                if not isinstance(before, int) or before < now:
                    # Before the next tasks of the keys that have had this turn or still have it.
                    before = now - 1
                step = row.step if isinstance(row.step, int) and 0 < row.step <= MAX_STEP else TURN
                last[row.flow] = before + step
                turns.append((row.agent_id, before + step))
            if turns:
                self._store(connection, queue, priority, turns)
        return len(found)

    def _store(
        self, connection: Connection, queue: str, priority: Priority, turns: list[tuple[Any, int]]
    ) -> None:
        place = {"queue": queue, "priority": int(priority), "lane": RANKED + priority, "epoch": 0}
        values: Any
        match self._dialect.ranks:
            case "lists":
                ids, places = zip(*turns, strict=True)
                values = {**place, "ids": list(ids), "turns": list(places)}
            case "json":
                values = {**place, "turns": json.dumps({agent_id.hex: turn for agent_id, turn in turns})}
            case _:
                values = [{**place, "id": agent_id, "turn": turn} for agent_id, turn in turns]
        connection.execute(self._sql.rank, values)

    def lock(self, connection: Connection, queue: str) -> dict[str, int]:
        """Lock and return the counters of a queue."""
        names = [
            counter(queue, priority) for counter in (turn_counter, plain_counter) for priority in Priority
        ]
        wanted = {f"name{number}": name for number, name in enumerate(names)}
        for _ in range(2):
            counters = dict(map(tuple, connection.execute(self._sql.lock_counters, wanted).all()))
            missing = [{"name": name} for name in names if name not in counters]
            if not missing:
                break
            connection.execute(self._sql.create_counter, missing)
        return {name: counters.get(name, 0) for name in names}


class FairClaim:
    """A claim of tasks that take turns, within its transaction."""

    def __init__(self, lanes: FairLanes, connection: Connection, queue: str) -> None:
        self._lanes = lanes
        self._connection = connection
        self._queue = queue
        self._counters: dict[str, int] | None = None
        self._reached: dict[str, int] = {}

    def take(self, priority: Priority, most: int, *, with_plain: bool) -> list[Any]:
        """Lock and return the tasks whose turns are next; `with_plain` if tasks without a key may be ready."""
        if with_plain:
            return self._take_both(priority, most)
        rows = self._rows(priority, most, ranked=True)
        turns = [row.at for row in rows if is_turn(row.at)]
        if turns:
            self._reached[turn_counter(self._queue, priority)] = max(turns)
        return rows

    def close(self) -> None:
        """Store the turns that the claim has reached."""
        for name, turn in sorted(self._reached.items()):
            self._lanes.advance(self._connection, name, turn)

    def _take_both(self, priority: Priority, most: int) -> list[Any]:
        """Return the tasks that are next with and without a key. Such claims wait for each other."""
        if self._counters is None:
            self._counters = self._lanes.lock(self._connection, self._queue)
        ranked, plain = (self._rows(priority, most, ranked=ranked) for ranked in (True, False))
        turn_name, plain_name = turn_counter(self._queue, priority), plain_counter(self._queue, priority)
        first = next((row.at for row in ranked if is_turn(row.at)), None)
        now = current_turn(self._counters[turn_name], first)
        plain_turn = self._counters[plain_name]
        plain_turn = min(plain_turn, now) if is_turn(plain_turn) else now
        chosen, turn, plain_turn = merge(ranked, plain, most, now, plain_turn)
        for name, value in ((turn_name, turn), (plain_name, plain_turn)):
            self._counters[name] = self._reached[name] = value
        return chosen

    def _rows(self, priority: Priority, most: int, *, ranked: bool) -> list[Any]:
        lane = RANKED + priority if ranked else int(priority)
        return self._lanes.rows(self._connection, self._queue, lane, most, ranked=ranked)


def turn_counter(queue: str, priority: Priority) -> str:
    """Return the name of the counter with the turn of the task that was claimed last."""
    return f"turn:{int(priority)}:{queue}"


def plain_counter(queue: str, priority: Priority) -> str:
    """Return the name of the counter with the last turn of the tasks without a key."""
    return f"turn-plain:{int(priority)}:{queue}"


def is_turn(value: Any) -> bool:
    """Return True for a turn that was given. Those that went back to the front have a negative one."""
    return type(value) is int and 0 <= value <= MAX_TURN


def current_turn(stored: Any, first: Any) -> int:
    """Return the current turn: the stored one, unless it cannot be right beside the lowest turn that waits."""
    turn = stored if is_turn(stored) else 0
    return min(max(turn, first - MAX_STEP), first) if is_turn(first) else turn


def merge(
    ranked: Sequence[Any], plain: Sequence[Any], most: int, turn: int, plain_turn: int
) -> tuple[list[Any], int, int]:
    """Return the tasks that are next of two ordered lanes, and their turns thereafter."""
    chosen: list[Any] = []
    keyed, plain = list(reversed(ranked)), list(reversed(plain))
    while len(chosen) < most and (keyed or plain):
        if keyed and not (plain and max(plain_turn + TURN, turn) <= keyed[-1].at):
            chosen.append(keyed.pop())
            if is_turn(chosen[-1].at):
                turn = chosen[-1].at
        else:
            chosen.append(plain.pop())
            if keyed:
                turn = plain_turn = max(plain_turn + TURN, turn)
    return chosen, turn, plain_turn

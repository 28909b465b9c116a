"""Waking the threads that wait on the SQL backend.

PostgreSQL notifies (LISTEN/NOTIFY), except through a pooler in transaction mode, which is polled. On SQLite, one thread per process reads `data_version`, which takes microseconds,
for all who wait there: on Linux when the kernel reports a write to the file's log, elsewhere at intervals. After a change
it looks who has something to read. MySQL offers neither: see `polled_wakeup.py`.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from agentexec.config import CONF
from agentexec.db.libpq import Statement
from agentexec.db.pooler import pooling_of
from agentexec.db.round_trips import RELAXED, run_transactions
from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.outage import Outage
from agentexec.state.sql_backend.file_watch import FileWatch
from agentexec.state.sql_models import RANKED, UNRANKED, Message, QueueEntry

log = logging.getLogger("agentexec.state")

VERSION_PAUSE, MAX_VERSION_PAUSE = 0.0005, 0.012
"""Seconds between two reads of SQLite's data_version: just after a change, and at most. They grow in between."""

VERSION_GROWTH = 3
"""Factor by which these seconds grow from one read to the next."""

SHORT_PAUSE = 0.002
"""Seconds from which on a pause ends with a write to SQLite's log."""

MAX_USELESS, USELESS_PAUSE = 10, 0.005
"""Changes in a row that concern no waiting thread, after which each further look at SQLite comes these seconds later: others
are busy, and there may be thousands of changes per second."""

FILE_WATCH_SECONDS = 1.0
"""Longest wait for a write to SQLite's log, in seconds."""

IDLE_SECONDS = 60.0
"""Longest pause of the thread that watches SQLite while nobody waits, in seconds."""

POLL_PAUSE, MAX_POLL_PAUSE = 0.005, 0.05
"""Seconds between two polls of a database without notifications: just after a change, and at most."""

LISTEN_SECONDS = 1.0
"""Longest wait for a notification of PostgreSQL, in seconds."""

NOTIFY = f"SELECT {RELAXED}, pg_notify(%(channel)s, subject) FROM unnest(%(subjects)s::text[]) subject"
"""Notification of PostgreSQL. The setting is in force when the statement's own transaction commits."""

READY_SECONDS = 5.0
"""Longest wait for the thread that watches the database to start, in seconds."""

TASKS = "tasks"
"""Subject of the changes after which tasks may be ready."""

MAIL = "mail "
"""Beginning of the subject of a mailbox."""

SOON_MICROS = 60_000_000
"""Microseconds from now within which a task counts as ready: longer than anybody waits without looking."""

HAS_MAIL = f"SELECT EXISTS (SELECT 1 FROM {Message.__tablename__} WHERE mailbox = ?)"
HAS_TASKS = (
    f"SELECT EXISTS (SELECT 1 FROM {QueueEntry.__tablename__} WHERE queue = ? "
    f"AND lane IN (0, 1, {UNRANKED}, {UNRANKED + 1}) AND at <= ?) "
    f"OR EXISTS (SELECT 1 FROM {QueueEntry.__tablename__} WHERE queue = ? AND lane IN ({RANKED}, {RANKED + 1}))"
)
"""Questions that SQLite answers from indexes, in a tenth of the time that a thread needs to wake up and look for itself."""


def mail(mailbox: str) -> str:
    """Return the subject of the changes after which a mailbox may have messages."""
    return f"{MAIL}{mailbox}"


class Wakeup:
    """Lets threads wait until something may have changed. Changes of this process wake them immediately.

    The subject of a change is TASKS or the `mail` of a mailbox, so that each task does not wake every thread of every
    process. Where nothing tells the subject, all are woken.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._generation = 0
        self._own_generations: dict[str, int] = {}
        """Numbers of changes by subject, of those for which threads of this process wait."""
        self._queues: set[str] = set()
        self._waiting: Counter[str] = Counter()
        """Number of threads that wait, by subject."""
        self._closed = False
        self._watching = False
        self._thread: threading.Thread | None = None
        self._idle_since: float | None = None

    def note_queues(self, queues: Sequence[str]) -> None:
        """Note the queues whose tasks threads of this process wait for, before they `mark`."""
        self._queues.update(queues)

    def mark(self, subject: str = TASKS) -> int:
        """Return the current generation. `wait` with it returns for every change after this call."""
        with self._changed:
            self._prepare()
            # The thread detects changes from a known state on, which it has to read first.
            self._changed.wait_for(lambda: self._watching or self._closed, READY_SECONDS)
            return self._current(subject)

    def wait(self, since: int, timeout: float, subject: str = TASKS) -> None:
        """Wait until something has changed since `mark` returned `since`, or for `timeout` seconds."""
        with self._changed:
            self._waiting[subject] += 1
            if self._waiting.total() == 1:
                self._changed.notify_all()  # the thread may be idle
            try:
                self._changed.wait_for(lambda: self._current(subject) != since or self._closed, timeout)
            finally:
                self._waiting[subject] -= 1
                if not self._waiting[subject]:
                    del self._waiting[subject]

    def announce(self, *subjects: str) -> None:
        """Wake the threads that wait for some subjects, or all: here immediately, elsewhere by the means of the database."""
        if subjects:
            self.note_changes(subjects)
        else:
            self._note_change()

    def statement(self, *subjects: str) -> Statement | None:
        """Return a statement that wakes the threads of other processes, if there is one."""
        return None

    def _current(self, subject: str) -> int:
        return self._generation + self._own_generations.setdefault(subject, 0)

    def close(self) -> None:
        """End the thread. A later wait starts it again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def note_changes(self, subjects: Sequence[str]) -> None:
        """Wake those threads of this process that wait for some subjects."""
        if known := [subject for subject in subjects if subject in self._own_generations]:
            with self._changed:
                for subject in known:
                    self._own_generations[subject] += 1
                # Where it polls, nobody says what they wait for.
                if not self._waiting or any(subject in self._waiting for subject in known):
                    self._changed.notify_all()

    def _note_change(self) -> None:
        with self._changed:
            self._watching = True
            self._generation += 1
            self._changed.notify_all()

    def _prepare(self) -> None:
        """Start the thread that watches the database unless it runs. The caller holds the lock."""
        if self._thread is None or not self._thread.is_alive():
            self._closed = self._watching = False
            self._thread = threading.Thread(target=self._watch, name="agentexec-wakeup", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        raise NotImplementedError

    def _pause(self, since: int, timeout: float, subject: str) -> None:
        """Wait for a change in this process, or for a pause: the longer nothing has happened, the longer."""
        pause = POLL_PAUSE
        now = time.monotonic()
        if self._idle_since is None or self._current(subject) != since:
            self._idle_since = now
        else:
            pause = min(MAX_POLL_PAUSE, max(POLL_PAUSE, (now - self._idle_since) / 20))
        with self._changed:
            self._changed.wait_for(lambda: self._current(subject) != since, min(pause, timeout))

    def _own_connection(self) -> Any:
        """Return a driver's connection that the engine's pool does not count."""
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        return connection


class _Pace:
    """Pauses between two looks at SQLite: with a write to its log the next one comes at once, unless writes concern nobody."""

    def __init__(self, watch: FileWatch | None) -> None:
        self._watch = watch
        self._seconds = VERSION_PAUSE
        self._useless = 0
        """Changes in a row that concerned nobody, until there are none for a while."""

    def note_change(self, *, useful: bool) -> None:
        """Note a change, and whether a thread waited for it."""
        self._seconds = VERSION_PAUSE
        self._useless = 0 if useful else self._useless + 1

    def note_quiet(self) -> None:
        """Note that nothing has changed."""
        if self._seconds >= MAX_VERSION_PAUSE:
            self._useless = 0

    def pause(self) -> None:
        """Wait until the next look."""
        longer = min(VERSION_GROWTH * self._seconds, MAX_VERSION_PAUSE)
        if self._useless > MAX_USELESS:
            time.sleep(USELESS_PAUSE)
        elif self._watch is None or self._seconds < SHORT_PAUSE:
            # Not ended by writes, of which there are several for each commit. A commit becomes visible a moment
            # after its log is written: the version is read several times.
            time.sleep(self._seconds)
        elif self._watch.wait(self._seconds if self._seconds < MAX_VERSION_PAUSE else FILE_WATCH_SECONDS):
            longer = VERSION_PAUSE
        self._seconds = longer


class SqliteWakeup(Wakeup):
    """Watches the file's version counter: when the kernel reports a write to its log, else at intervals."""

    def _watch(self) -> None:
        # At debug level: a database that cannot be used is reported by the calls that fail on it.
        outage = Outage(log, level=logging.DEBUG)
        while not self._closed:
            try:
                self._watch_connection(outage)
            except SQLAlchemyError as error:
                time.sleep(outage.failed("Watching the database was interrupted: %s.", type(error).__name__))

    def _watch_connection(self, outage: Outage) -> None:
        log_file = Path(f"{self._engine.url.database}-wal").absolute()
        with contextlib.closing(self._own_connection()) as connection, contextlib.ExitStack() as stack:
            watch = FileWatch.open(log_file)
            if watch is not None:
                stack.callback(watch.close)
            execute = connection.cursor().execute
            pace = _Pace(watch)
            known = None
            outage.recovered()
            while not self._closed:
                version = execute("PRAGMA data_version").fetchone()
                if version == known:
                    pace.note_quiet()
                elif known is None:
                    self._note_change()
                else:
                    pace.note_change(useful=self._note_news(execute))
                known = version
                if self._waiting:
                    pace.pause()
                else:
                    self._idle()

    def _note_news(self, execute: Callable[..., sqlite3.Cursor]) -> bool:
        """Wake those for whom there is something to read; return False if nobody waited for it.

        Most changes, such as signs of life, are news to nobody.
        """
        soon = int(time.time() * MICROS_PER_SECOND) + SOON_MICROS
        try:
            news = [
                subject
                for subject in list(self._own_generations)
                if subject.startswith(MAIL) and execute(HAS_MAIL, (subject.removeprefix(MAIL),)).fetchone()[0]
            ]
            if any(execute(HAS_TASKS, (queue, soon, queue)).fetchone()[0] for queue in list(self._queues)):
                news.append(TASKS)
        except sqlite3.Error:
            self._note_change()  # whoever is woken tells what is wrong
            return True
        self.note_changes(news)
        return any(subject in self._waiting for subject in news)

    def _idle(self) -> None:
        """Pause until a thread waits."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed, IDLE_SECONDS)


class PostgresWakeup(Wakeup):
    """Listens on a connection of its own, or polls where a pooler leaves no session that could listen."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._polls = False

    def mark(self, subject: str = TASKS) -> int:
        """Return the current generation."""
        return self._current(subject) if self._polls else super().mark(subject)

    def wait(self, since: int, timeout: float, subject: str = TASKS) -> None:
        """Wait for a change or `timeout` seconds; where it polls, for a change in this process or a short pause."""
        if self._polls:
            self._pause(since, timeout, subject)
        else:
            super().wait(since, timeout, subject)

    @property
    def channel(self) -> str:
        """Channel of the notifications. Each carries a subject; those of earlier releases are empty, and wake all."""
        return f"{CONF.table_prefix}wake"

    def announce(self, *subjects: str) -> None:
        """Wake the threads that wait for some subjects, or all; those of other processes by notifications."""
        super().announce(*subjects)
        run_transactions(self._engine, [self.statement(*subjects)], None)

    def statement(self, *subjects: str) -> Statement:
        """Return the statement that wakes the threads of other processes, to be a transaction of its own."""
        return NOTIFY, {"channel": self.channel, "subjects": list(subjects or ("",))}

    def _watch(self) -> None:
        outage = Outage(log, recovered="Listening on the database again.")
        while not self._closed and not self._polls:
            try:
                self._listen(outage)
            except Exception as error:
                # A driver may raise any error when its server goes away. Waits time out until it is back.
                time.sleep(
                    outage.failed("Listening on the database was interrupted: %s.", type(error).__name__)
                )

    def _listen(self, outage: Outage) -> None:
        with (
            contextlib.closing(self._own_connection()) as connection,
            selectors.DefaultSelector() as selector,
        ):
            connection.rollback()
            if not pooling_of(self._engine).keeps_session:
                self._polls = True
                self._note_change()
                return
            connection.autocommit = True
            connection.execute(f'LISTEN "{self.channel}"')
            selector.register(connection.fileno(), selectors.EVENT_READ)
            outage.recovered()
            self._note_change()
            while not self._closed:
                # psycopg's own wait wakes up ten times a second.
                if not selector.select(LISTEN_SECONDS):
                    continue
                for notification in connection.notifies(timeout=0):
                    if notification.payload:
                        self.note_changes([notification.payload])
                    else:
                        self._note_change()

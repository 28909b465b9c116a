"""Wakeups that ask again and again, and the choice of a database's quickest wakeup.

MySQL and MariaDB notify nobody. One thread of each process asks for all who wait there, in one round trip: briefly after
something has happened, and less often the longer nothing does. MariaDB is asked to look by itself until there is something,
in one statement without a stored procedure, which MySQL has not. Those who wait read only if there is something for them.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from sqlalchemy import Engine

from agentexec.db.round_trips import can_batch
from agentexec.outage import Outage
from agentexec.state.sql_backend.dialects import dialect_of
from agentexec.state.sql_backend.wakeup import (
    IDLE_SECONDS,
    MAIL,
    TASKS,
    PostgresWakeup,
    SqliteWakeup,
    Wakeup,
)
from agentexec.state.sql_models import RANKED, UNRANKED, Message, QueueEntry

log = logging.getLogger("agentexec.state")

ASK_PAUSE, MAX_ASK_PAUSE = 0.004, 0.03
"""Seconds between two questions to MySQL: just after a change, and at most."""

ASK_GROWTH = 30
"""Part of the time without a change that these seconds are."""

LOOK_PAUSE = 0.002
"""The same between two looks that MariaDB takes by itself, just after a change: they cost the process nothing."""

LOOKS = 10
"""Looks of one statement: it must not last long, as it knows nobody who begins to wait meanwhile."""

LOOK_UNTIL_FOUND = """
BEGIN NOT ATOMIC
  DECLARE found TEXT;
  DECLARE looks INT DEFAULT 0;
  REPEAT
    IF looks > 0 THEN DO SLEEP({pause}); END IF;
    SELECT CONCAT({columns}) INTO found;
    SET looks = looks + 1;
  UNTIL LOCATE('1', found) OR looks >= {looks} END REPEAT;
  SELECT found;
END
"""
"""Statement of MariaDB that ends once something is found. Each of its parts sees what is committed by then."""

PARSE_ERROR = 1064
"""MariaDB's number for a statement that it, or a proxy before it, does not know."""


class MysqlWakeup(Wakeup):
    """Asks on a connection of its own whether there are tasks in the queues or messages in the mailboxes of its process."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        now = dialect_of(engine).start
        queue, lanes = QueueEntry.__tablename__, f"(0, 1, {UNRANKED}, {UNRANKED + 1})"
        self._has_mail = f"EXISTS (SELECT 1 FROM {Message.__tablename__} WHERE mailbox = %s)"
        self._has_tasks = (
            f"EXISTS (SELECT 1 FROM {queue} WHERE queue = %s AND lane IN {lanes} AND at <= {now}) "
            f"OR EXISTS (SELECT 1 FROM {queue} WHERE queue = %s AND lane IN ({RANKED}, {RANKED + 1}))"
        )
        self._stirred_at = 0.0
        self._looks_refused = False
        """True if the server does not know the statement that waits."""

    def mark(self, subject: str = TASKS) -> int:
        """Return the current generation. The thread need not have begun: what is there is found whenever it asks."""
        with self._changed:
            self._prepare()
            return self._current(subject)

    def announce(self, *subjects: str) -> None:
        """Wake the threads that wait for some subjects here, and ask more often for a while."""
        self._stirred_at = time.monotonic()
        super().announce(*subjects)

    def _watch(self) -> None:
        # At debug level: a database that cannot be used is reported by the calls that fail on it.
        outage = Outage(log, level=logging.DEBUG)
        while not self._closed:
            try:
                self._ask_on_connection(outage)
            except Exception as error:
                # A driver may raise any error when its server goes away. Waits time out until it is back.
                self._looks_refused |= error.args[:1] == (PARSE_ERROR,)
                time.sleep(outage.failed("Watching the database was interrupted: %s.", type(error).__name__))

    def _ask_on_connection(self, outage: Outage) -> None:
        with contextlib.closing(self._own_connection()) as connection:
            self._engine.dialect.set_isolation_level(connection, "AUTOCOMMIT")
            cursor = connection.cursor()
            known: list[str] = []
            while not self._closed:
                news = self._news(cursor)
                outage.recovered()
                if news != known:
                    # A task that stays where it is, such as one of a paused queue, is news once.
                    self._stirred_at = time.monotonic()
                known = news
                self.note_changes(news)
                if not self._waiting:
                    self._idle()
                elif news or not self._server_looks:
                    time.sleep(self._seconds(ASK_PAUSE))

    @property
    def _server_looks(self) -> bool:
        """True where a statement ends when there is something."""
        dialect: Any = self._engine.dialect
        return dialect.is_mariadb and dialect.driver == "pymysql" and not self._looks_refused

    def _news(self, cursor: Any) -> list[str]:
        """Return the subjects for which there is something to read."""
        mailboxes = [subject for subject in list(self._own_generations) if subject.startswith(MAIL)]
        queues = list(self._queues)
        columns = [self._has_mail] * len(mailboxes)
        if queues:
            columns.append(" OR ".join([self._has_tasks] * len(queues)))
        if not columns:
            time.sleep(MAX_ASK_PAUSE)
            return []
        values = [subject.removeprefix(MAIL) for subject in mailboxes]
        values += [queue for queue in queues for _ in range(2)]
        listed = ", ".join(columns)
        if self._server_looks:
            pause = self._seconds(LOOK_PAUSE)
            cursor.execute(LOOK_UNTIL_FOUND.format(columns=listed, pause=pause, looks=LOOKS), values)
            [answers] = cursor.fetchone()
        else:
            cursor.execute(f"SELECT {listed}", values)
            answers = cursor.fetchone()
        subjects = [*mailboxes, TASKS]
        return [subject for subject, found in zip(subjects, map(int, answers), strict=False) if found]

    def _seconds(self, least: float) -> float:
        """Return the length of a pause, which grows with the time without a change."""
        quiet = time.monotonic() - self._stirred_at
        return min(MAX_ASK_PAUSE, max(least, quiet / ASK_GROWTH))

    def _idle(self) -> None:
        """Pause until a thread waits."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed, IDLE_SECONDS)
        self._stirred_at = time.monotonic()


class PollingWakeup(Wakeup):
    """Sleeps briefly where nothing is known of the database."""

    def mark(self, subject: str = TASKS) -> int:
        """Return the current generation."""
        return self._current(subject)

    def wait(self, since: int, timeout: float, subject: str = TASKS) -> None:
        """Wait for a change in this process, or for a pause of at most `timeout` seconds."""
        self._pause(since, timeout, subject)


def make_wakeup(engine: Engine) -> Wakeup:
    """Return the quickest wakeup that the database supports."""
    if engine.dialect.name == "sqlite":
        return SqliteWakeup(engine)
    if engine.dialect.name == "postgresql" and can_batch(engine.dialect):
        return PostgresWakeup(engine)
    if engine.dialect.name in ("mysql", "mariadb"):
        return MysqlWakeup(engine)
    return PollingWakeup(engine)

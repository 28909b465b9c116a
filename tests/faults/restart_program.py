"""Kills at every instant of a restart: `python -m tests.faults.restart_program FOLDER DATABASE_URL EVERY` prints a report as JSON.

The program only imports; every attempt is a process forked from it, as in `tests.faults.crash_program`. An instant is
the moment before or after a journal append, a statement of the restart's transaction, or the end of an attempt.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.activity.changes.stores import record_store
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.journal.given_up import given_up_runs
from agentexec.journal.models import JournalEntry, JournalHistory
from agentexec.runtime import RUNTIME
from agentexec.task import Lease, new_agent_id
from agentexec.worker.attempt import execute_attempt
from tests.faults import restart_module as shop
from tests.faults.crash_program import NEVER, forked, prepare_forks

ENDED, AGAIN = 0, 9
"""Exit codes of attempts: the task has ended, or is back on its queue."""


class Program:
    """Restarts of many tasks with the same story, each killed at another instant."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._url = database_url
        self._ledger = folder / "ledger.txt"

    def run(self, every: int) -> dict[str, Any]:
        """Take one task through its restart, then one for every nth instant of its attempts, and one that dies at each append."""
        (self._folder / "deployed").unlink(missing_ok=True)
        reference = self._begin()
        (self._folder / "deployed").touch()
        seen = self._restart(reference, [])
        plans = [
            [*[NEVER] * number, instant]
            for number, instants in enumerate(seen)
            for instant in range(1, instants + 1)
        ]
        plans = [*plans[::every], [4] * sum(seen)]
        (self._folder / "deployed").unlink()
        tasks = [self._begin() for _ in plans]
        (self._folder / "deployed").touch()
        complaints: list[str] = []
        self.kills = 0
        for agent_id, plan in zip(tasks, plans, strict=True):
            before = self.kills
            self._restart(agent_id, plan)
            died = self.kills - before
            found = self._audit(agent_id, died) if died else ["nothing was killed"]
            number = len(plan)
            complaints += [f"killed at instant {plan[-1]} of attempt {number}: {fault}" for fault in found]
        return {"instants": sum(seen), "attempts": seen, "kills": self.kills, "complaints": complaints}

    def _begin(self) -> UUID:
        """Add a task, and run it with the old code until it waits."""
        agent_id = new_agent_id()
        assert forked(self._add, agent_id) == 0
        assert forked(self._attempt, agent_id, 1, NEVER) == AGAIN
        return agent_id

    def _restart(self, agent_id: UUID, plan: list[int]) -> list[int]:
        """Run a task with the new code until it ends, and return how many instants each attempt had."""
        seen: list[int] = []
        for number in range(200):
            kill_at = plan[number] if number < len(plan) else NEVER
            code = forked(self._attempt, agent_id, number + 2, kill_at)
            assert code in (ENDED, AGAIN, -signal.SIGKILL), code
            if code == -signal.SIGKILL:
                self.kills += 1
                continue
            seen.append(int((self._folder / "instants").read_text()))
            if code == ENDED:
                return seen
        raise AssertionError("the task does not end")

    def _add(self, agent_id: UUID) -> int:
        ax.configure(database_url=self._url)
        context = json.dumps({"kill_at": agent_id.int % 10**9})
        task = NewTask(agent_id, "sell", context, "q", 1, None, None, None, "")
        with writing(RUNTIME.engine) as connection:
            insert_tasks(connection, [task], utc_now())
        return 0

    def _attempt(self, agent_id: UUID, epoch: int, kill_at: int) -> int:
        """Run one attempt from its admission to its end."""
        ax.configure(database_url=self._url)
        store, instants = record_store(), shop.INSTANTS
        if epoch == 2:
            ax.send_event_sync("deployed", str(agent_id.int % 10**9))
        terms = StartTerms(utc_now(), "", max_crashes=1000)
        admissions = store.admit([Lease(agent_id, epoch)], terms, suspect_running=False)
        if not admissions.started:
            (self._folder / "instants").write_text("0")
            return ENDED  # it was killed after its end
        instants.kill_at, instants.is_planned = kill_at, True
        ending = asyncio.run(
            execute_attempt(
                shop.pool.registry, admissions.started[0], ThreadPoolExecutor(1), is_stopping=lambda: False
            )
        )
        instants.tick("before the end of an attempt")
        assert not store.record([], [ending], now=utc_now(), result_ttl=3600).refused
        instants.tick("after the end of an attempt")
        (self._folder / "instants").write_text(str(instants.seen))
        return ENDED if ending.status.final else AGAIN

    def _audit(self, agent_id: UUID, died: int) -> list[str]:
        """Return what is wrong with a task that was killed, in a process that may connect."""
        report = self._folder / "faults.json"

        def look() -> int:
            report.write_text(json.dumps(self._faults(agent_id, died)))
            return 0

        assert forked(look) == 0
        return list(json.loads(report.read_text()))

    def _faults(self, agent_id: UUID, died: int) -> list[str]:
        ax.configure(database_url=self._url)
        with Session(RUNTIME.engine) as db:
            detail = ax.activity.detail(db, agent_id)
            runs = given_up_runs(db, agent_id)
            tables = (JournalEntry, JournalHistory)
            now, before = (
                sorted(db.scalars(select(table.path).where(table.agent_id == agent_id))) for table in tables
            )
        lines = [line.split() for line in self._ledger.read_text().splitlines()]
        keys = Counter((word, key) for number, word, key in lines if number == str(agent_id.int % 10**9))
        old = [key for word, key in keys if word == "old"]
        new = [key for word, key in keys if word == "new"]
        told = sum("Beginning the run again (restart 1 of" in line.message for line in detail.logs)
        result = ax.get_result_sync(agent_id) if detail.status is ax.Status.COMPLETE else detail.error
        checks = {
            f"it ended {detail.status} with {result}": str(result).startswith("Sold by new code."),
            f"{len(runs)} runs were given up": len(runs) == 1,
            f"history has {before}": before.count("/given-up") == 1 and len(before) == runs[0].facts + 1,
            f"the journal has {now}": now.count("/restart") == 1,
            f"{told} lines tell of the restart": told == 1,
            f"old code has charged {keys}": len(old) == 1 and keys["old", old[0]] == 1,
            f"new code has charged {keys}": len(new) == 1 and keys["new", new[0]] <= 1 + died,
        }
        return [fault for fault, is_right in checks.items() if not is_right]


if __name__ == "__main__":
    assert Path(os.environ["LEDGER"]).parent == Path(sys.argv[1])
    prepare_forks()
    print(json.dumps(Program(Path(sys.argv[1]), sys.argv[2]).run(int(sys.argv[3]))))
